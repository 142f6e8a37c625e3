"""Keys of one round: X25519 for what two sites agree on, HKDF for what they make of it, AES-GCM for what they send."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
NAME = "fedbrats secure aggregation 1"  # of the protocol, in all that is derived


class BadKey(ValueError):
    """A public key that gives no secret, or a sealed text that is not what it should be."""


@dataclass(frozen=True)
class KeyPair:
    """Of X25519, 32 bytes each."""

    private: bytes
    public: bytes

    @classmethod
    def new(cls) -> KeyPair:
        """A fresh one."""
        return cls.of(os.urandom(KEY_BYTES))

    @classmethod
    def of(cls, private: bytes) -> KeyPair:
        """That of a private key."""
        return cls(private, X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


def text_of(*parts: object) -> bytes:
    """Bytes that stand for `parts` and no others."""
    return json.dumps([NAME, *parts], ensure_ascii=True).encode()


def derived(secret: bytes, about: bytes) -> bytes:
    """32 bytes for one purpose (HKDF with SHA-256, RFC 5869)."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=about).derive(secret)


def agreed(private: bytes, public: bytes, about: bytes) -> bytes:
    """32 bytes that both owners of two key pairs can work out, for one purpose.

    Raises:
        BadKey: no key of X25519, or one with which everybody could.
    """
    try:
        other = X25519PublicKey.from_public_bytes(public)
        return derived(X25519PrivateKey.from_private_bytes(private).exchange(other), about)
    except ValueError as error:
        raise BadKey("no public key of X25519 that a secret can be made with") from error


def seal(key: bytes, text: bytes, about: bytes) -> bytes:
    """`text` as only who has the key can read it; it opens only with the same `about`."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, text, about)


def unseal(key: bytes, sealed: bytes, about: bytes) -> bytes:
    """The text again.

    Raises:
        BadKey: it was changed on the way, or is of other sites or another round.
    """
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about)
    except (InvalidTag, ValueError) as error:
        raise BadKey("what was sealed is not what it should be") from error
