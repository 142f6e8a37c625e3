"""The federation's authority and the certificate of its server: X.509 (RFC 5280) on NIST P-384 with SHA-384."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedbrats.config.targets import ConfigError
from fedbrats.files import read_text

SLACK = timedelta(minutes=5)  # a site's clock may be behind by this when a certificate is new
_HASH = hashes.SHA384()


def now() -> datetime:
    """The time, UTC, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A private key on NIST P-384."""
    return ec.generate_private_key(ec.SECP384R1())


def authority_certificate(
    name: str, key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime
) -> x509.Certificate:
    """The certificate of an authority that signs for the servers of one federation and for no other authority.

    Args:
        name: of the federation.
        key: the authority's own; the certificate is signed with it.
        start, end: when it is valid, with a time zone.
    """
    subject = _called(f"fedbrats authority of {name}"[:64])
    return (
        _begun(subject, subject, key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, _HASH)
    )


def server_certificate(
    names: Sequence[str],
    key: ec.EllipticCurvePublicKey,
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
    start: datetime,
    end: datetime,
) -> x509.Certificate:
    """The certificate of the federation's server.

    Args:
        names: DNS names and IP addresses by which it is called, the first its own.
        key: the server's.
        authority: that signs it.
        start, end: when it is valid, with a time zone; never beyond the authority's own end.
    """
    signing, above = authority
    end = min(end, above.not_valid_after_utc)
    identifier = above.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _begun(_called(names[0][:64]), above.subject, key, start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(signing, _HASH)
    )


def names_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names and IP addresses that a server's certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return [*found.get_values_for_type(x509.DNSName), *addresses]


def signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the key in `authority` signed `certificate`; dates are not looked at."""
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # InvalidSignature, or ValueError and TypeError for names and keys of another kind
        return False
    return True


def belongs(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    """Whether `key` is the private half of the key in `certificate`."""
    return key.public_key() == certificate.public_key()


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` prints it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def certificate_text(*certificates: x509.Certificate) -> str:
    """PEM, one after the other."""
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode("ascii") for one in certificates)


def key_text(key: ec.EllipticCurvePrivateKey) -> str:
    """PEM (PKCS 8), not encrypted."""
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption()).decode("ascii")


def read_certificates(file: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, at least one.

    Raises:
        ConfigError: it cannot be read, holds none, or letters other than ASCII; the message names it.
    """
    try:
        text = read_text(file)
        found = x509.load_pem_x509_certificates(text.encode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: no certificate can be read from it ({error})") from error
    if not text.isascii():
        raise ConfigError(
            f"{file}: holds letters other than ASCII, which Flower does not read: leave only the certificates in it"
        )
    return found


def read_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """The private key of a PEM file.

    Raises:
        ConfigError: it cannot be read, or is no key on an elliptic curve; the message names the file.
    """
    try:
        key = serialization.load_pem_private_key(read_text(file).encode(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{file}: no private key can be read from it ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{file}: not a key on an elliptic curve")
    return key


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
