"""The keys by which a federation's server knows its sites, and the secret between Flower's processes on one machine.

A site's key is on NIST P-384, the private half in OpenSSH's format: what `ssh-keygen -t ecdsa -b 384` makes, and what
Flower reads.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedbrats.config.targets import ConfigError
from fedbrats.credentials.certificates import new_key
from fedbrats.files import read_text, replacing, write_text

SECRET_BYTES = 32
LONGEST_KEY = 2**16  # bytes of a file
_OPENSSH = serialization.Encoding.OpenSSH


def make_site_key(file: Path) -> str:
    """Write a new private key to `file` (mode 0600) and its public half to `<file>.pub`, and return that.

    Raises:
        ConfigError: one of them is there already.
    """
    public_file = file.with_name(f"{file.name}.pub")
    for path in (file, public_file):
        if path.exists():
            raise ConfigError(f"{path}: is there already; a key is never overwritten, choose another file")
    key = new_key()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = public_text(key.public_key())
    write_text(file, private.decode("ascii"), private=True)
    write_text(public_file, f"{public}\n")
    return public


def read_public_key(file: Path) -> str:
    """The public key of a file in OpenSSH's format, as `public_text` writes it.

    Raises:
        ConfigError: it cannot be read, is a private key, or is of another kind; the message names the file.
    """
    try:
        text = read_text(file, LONGEST_KEY)
        if "PRIVATE" in text:
            raise ConfigError(f"{file}: a private key, which stays where it is; give the file ending in .pub")
        key = serialization.load_ssh_public_key(text.encode())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file}: no public key can be read from it ({error})") from error
    return public_text(_refuse_other(key, file))


def read_site_key(file: Path) -> str:
    """The public half of a site's private key, as `public_text` writes it.

    Raises:
        ConfigError: it cannot be read, is of another kind, or others may read it; the message names the file.
    """
    try:
        key = serialization.load_ssh_private_key(read_text(file, LONGEST_KEY).encode(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{file}: no private key can be read from it ({error})") from error
    if os.name == "posix" and file.stat().st_mode & 0o077:
        raise ConfigError(f"{file}: others on this machine may use the site's key; chmod 600 {file}")
    return public_text(_refuse_other(key.public_key(), file))


def public_text(key: ec.EllipticCurvePublicKey) -> str:
    """`ecdsa-sha2-nistp384 <base64>`, without a comment."""
    return key.public_bytes(_OPENSSH, serialization.PublicFormat.OpenSSH).decode("ascii")


def public_pem(public: str) -> bytes:
    """The key of `public_text` as Flower's server keeps it: PEM of its SubjectPublicKeyInfo."""
    key = serialization.load_ssh_public_key(public.encode("ascii"))
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(public: str) -> str:
    """The fingerprint of a key of `public_text`, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def make_secret(file: Path) -> Path:
    """`file` (mode 0600) with 32 random bytes; one that is there stays as it is."""
    if not file.exists():
        with replacing(file, private=True) as unfinished:
            unfinished.write_bytes(os.urandom(SECRET_BYTES))
    return file


def _refuse_other(key: object, file: Path) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(
            f"{file}: not a key on NIST P-384 (fedbrats site key, or ssh-keygen -t ecdsa -b 384)"
        )
    return key
