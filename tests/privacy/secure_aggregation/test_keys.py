"""Keys against the printed vectors of the RFCs, and what does not open a sealed text."""

from __future__ import annotations

import pytest

from fedbrats.privacy.secure_aggregation.keys import BadKey, KeyPair, agreed, derived, seal, text_of, unseal

# RFC 7748, section 6.1: private, public; and what they agree on
ALICE = (
    "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
    "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
)
BOB = (
    "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
)
BOTH = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
# RFC 5869, test case 3 (no salt, no info), its first 32 bytes
OUTPUT = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"


def test_printed_vectors() -> None:
    assert derived(b"\x0b" * 22, b"").hex() == OUTPUT
    alice, bob = (KeyPair.of(bytes.fromhex(private)) for private, _ in (ALICE, BOB))
    assert (alice.public.hex(), bob.public.hex()) == (ALICE[1], BOB[1])
    expected = derived(bytes.fromhex(BOTH), b"x")
    assert agreed(alice.private, bob.public, b"x") == agreed(bob.private, alice.public, b"x") == expected


def test_keys_of_one_purpose_serve_no_other() -> None:
    one, two = KeyPair.new(), KeyPair.new()
    made = {agreed(one.private, two.public, text_of(*parts)) for parts in (["a"], ["b"], ["a", "b"], ["a,b"])}
    assert len(made) == 4
    assert KeyPair.new() != KeyPair.new()


@pytest.mark.parametrize("public", [bytes(32), bytes([1]) + bytes(31), b"short", b""])
def test_a_public_key_with_which_everybody_could(public: bytes) -> None:
    with pytest.raises(BadKey, match="no public key"):
        agreed(KeyPair.new().private, public, b"")


def test_what_does_not_open() -> None:
    key, sealed = bytes(range(32)), seal(bytes(range(32)), b"text", b"about")
    assert unseal(key, sealed, b"about") == b"text"
    assert b"text" not in sealed
    assert seal(key, b"text", b"about") != sealed  # a fresh nonce
    changed = bytes([*sealed[:-1], sealed[-1] ^ 1])
    for other in (
        (bytes(32), sealed, b"about"),
        (key, changed, b"about"),
        (key, sealed, b"another"),
        (key, sealed[:11], b"about"),
        (key, b"", b"about"),
    ):
        with pytest.raises(BadKey, match="not what it should be"):
            unseal(*other)
