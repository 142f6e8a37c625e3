"""Keys of sites, as ssh-keygen and Flower read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from fedbrats.config.targets import ConfigError
from fedbrats.credentials.keys import (
    fingerprint,
    make_secret,
    make_site_key,
    public_pem,
    read_public_key,
    read_site_key,
)

ssh_keygen = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")


def keygen(*words: str | Path) -> str:
    done = subprocess.run(["ssh-keygen", *words], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout


@ssh_keygen
def test_ssh_keygen_reads_our_keys_and_finds_the_same_fingerprint(tmp_path: Path) -> None:
    public = make_site_key(tmp_path / "site.key")
    assert keygen("-y", "-f", tmp_path / "site.key").split()[:2] == public.split()
    bits, found, *_ = keygen("-l", "-f", tmp_path / "site.key.pub").split()
    assert (bits, found) == ("384", fingerprint(public))


@ssh_keygen
def test_a_key_of_ssh_keygen_is_read(tmp_path: Path) -> None:
    keygen("-q", "-t", "ecdsa", "-b", "384", "-N", "", "-C", "röntgen@hospital", "-f", tmp_path / "own")
    assert read_site_key(tmp_path / "own") == read_public_key(tmp_path / "own.pub")
    assert "hospital" not in read_public_key(tmp_path / "own.pub")


@ssh_keygen
@pytest.mark.parametrize("kind", [["ed25519"], ["ecdsa", "-b", "256"], ["rsa"]])
def test_a_key_of_another_kind_is_refused(kind: list[str], tmp_path: Path) -> None:
    keygen("-q", "-t", *kind, "-N", "", "-f", tmp_path / "own")
    for read, file in ((read_site_key, "own"), (read_public_key, "own.pub")):
        with pytest.raises(ConfigError, match=rf"{file}: not a key on NIST P-384"):
            read(tmp_path / file)


@ssh_keygen
def test_a_key_with_a_password_is_refused(tmp_path: Path) -> None:
    keygen("-q", "-t", "ecdsa", "-b", "384", "-N", "secret", "-f", tmp_path / "own")
    with pytest.raises(ConfigError, match="own: no private key"):
        read_site_key(tmp_path / "own")


def test_flower_registers_the_same_key(tmp_path: Path) -> None:
    from fedbrats.federation import flower_env  # noqa: F401  before any flwr import
    from flwr.cli.supernode.register import try_load_public_key  # isort: skip

    public = make_site_key(tmp_path / "site.key")
    assert public_pem(public) == try_load_public_key(tmp_path / "site.key.pub")


def test_nobody_else_may_read_a_key_and_none_is_overwritten(tmp_path: Path) -> None:
    make_site_key(tmp_path / "site.key")
    before = (tmp_path / "site.key").read_bytes()
    assert (tmp_path / "site.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="never overwritten"):
        make_site_key(tmp_path / "site.key")
    assert (tmp_path / "site.key").read_bytes() == before
    (tmp_path / "site.key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_site_key(tmp_path / "site.key")


def test_a_private_key_given_for_a_public_one_is_refused_without_a_word_of_it(tmp_path: Path) -> None:
    make_site_key(tmp_path / "site.key")
    with pytest.raises(ConfigError, match=r"stays where it is; give the file ending in \.pub") as caught:
        read_public_key(tmp_path / "site.key")
    assert caught.value.__cause__ is None
    with pytest.raises(ConfigError, match="no public key"):
        read_public_key(tmp_path / "missing.pub")


def test_the_secret_is_of_32_bytes_and_stays(tmp_path: Path) -> None:
    secret = make_secret(tmp_path / "secret").read_bytes()
    assert len(secret) == 32
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert make_secret(tmp_path / "secret").read_bytes() == secret
    assert make_secret(tmp_path / "other").read_bytes() != secret


def test_flower_loads_the_private_key(tmp_path: Path) -> None:
    public = make_site_key(tmp_path / "site.key")
    key = serialization.load_ssh_private_key((tmp_path / "site.key").read_bytes(), None)  # as Flower does
    assert read_site_key(tmp_path / "site.key") == public
    assert key.key_size == 384
