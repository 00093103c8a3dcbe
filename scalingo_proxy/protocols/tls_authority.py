"""A certificate authority of one's own: for demonstrations and for tests.

Issues certificates that ordinary clients accept once they are given its own.
Nothing is kept on a disk here, no clock is asked, and nobody but whoever holds
the object can have anything signed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "PrivateKey"]

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

#: Clients' clocks differ by that much.
_LEEWAY = timedelta(hours=1)


class Authority:
    """Whoever trusts :attr:`pem` accepts what it issues.

    :ivar certificate: its own certificate.
    :ivar key: its own key.
    :ivar issuers: PEM of the authorities between it and the root, itself
        included; empty for a root.
    """

    def __init__(self, certificate: x509.Certificate, key: PrivateKey, issuers: bytes = b"") -> None:
        self.certificate = certificate
        self.key = key
        self.issuers = issuers

    @classmethod
    def create(cls, name: str, now: float, days: float = 90.0, within: Sequence[str] = ()) -> Authority:
        """A root with a new key.

        :param now: seconds since the epoch.
        :param within: the domains that it can vouch for, with everything
            below them; clients hold it to that.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_signed_for_authority(name, key, now, days, None, within), key)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes) -> Authority:
        """A root that was kept.

        :raises ValueError: it cannot be read.
        """
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = serialization.load_pem_private_key(key_pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("the key is not that of the certificate")
        return cls(certificate, key)

    def subordinate(self, name: str, now: float, days: float = 90.0) -> Authority:
        """An authority below this one, whose certificates come with its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed_for_authority(name, key, now, days, self, ())
        return Authority(certificate, key, certificate.public_bytes(_PEM) + self.issuers)

    @property
    def pem(self) -> bytes:
        """What a client has to trust."""
        return self.certificate.public_bytes(_PEM)

    @property
    def key_pem(self) -> bytes:
        """Its key, which nobody else may have."""
        return _key_pem(self.key)

    def issue(
        self,
        domains: Sequence[str],
        now: float,
        days: float = 30.0,
        key: PrivateKey | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> tuple[bytes, bytes]:
        """A certificate for *domains*, which may be addresses: its chain and its key, in PEM.

        :param domains: without any, it is a certificate that names nobody.
        :param key: ECDSA on P-256, a new one, when left out.
        :param usage: what it is good for.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(domains[0] if domains else "nobody", self.certificate.subject, key, now, days)
            .add_extension(x509.ExtendedKeyUsage([usage]), False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(_usage(digital_signature=True), True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
        )
        if domains:
            names = [_general_name(name) for name in domains]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        built = builder.sign(self.key, hashes.SHA256())
        return built.public_bytes(_PEM) + self.issuers, _key_pem(key)


_PEM = serialization.Encoding.PEM


def _signed_for_authority(
    name: str, key: PrivateKey, now: float, days: float, issuer: Authority | None, within: Sequence[str]
) -> x509.Certificate:
    issuer_name = issuer.certificate.subject if issuer else _name(name)
    builder = (
        _builder(name, issuer_name, key, now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .add_extension(_usage(key_cert_sign=True), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    if within:
        permitted = x509.NameConstraints([x509.DNSName(domain) for domain in within], None)
        builder = builder.add_extension(permitted, True)
    return builder.sign(issuer.key if issuer else key, hashes.SHA256())


def _builder(
    name: str, issuer: x509.Name, key: PrivateKey, now: float, days: float
) -> x509.CertificateBuilder:
    begin = datetime.fromtimestamp(int(now), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _LEEWAY)
        .not_valid_after(begin + timedelta(days=days))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _usage(digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return x509.DNSName(text)


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
