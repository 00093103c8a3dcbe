"""What is wrong with a chain of certificates and its key, and what is told of them.

Nothing is read from PEM here, and no clock is asked: both is the business of
:mod:`.tls_certificates`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scalingo_proxy.errors import Mistake
from scalingo_proxy.routing.domains import normalise_domain

__all__ = ["Key", "chain_mistakes", "domains_of", "key_mistakes", "subject_of"]

_RSA_BITS = range(2048, 4097)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_WEAK_HASHES = (hashes.MD5, hashes.SHA1)
_UNPRINTABLE = re.compile(r"[^ -~]")

#: The keys that are served.
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def key_mistakes(key: Any) -> Iterator[str]:
    """What is wrong with a private key by itself, in sentences about it."""
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < _RSA_BITS.start:
            yield f"is too weak: RSA with {key.key_size} bits, at least {_RSA_BITS.start} are needed"
        elif key.key_size not in _RSA_BITS:
            # One signature takes 20 ms with 8192 bits, while nobody else is served.
            yield f"is too large: RSA with {key.key_size} bits, at most {_RSA_BITS.stop - 1} are served"
        elif not _is_consistent(key):
            yield "is damaged: its numbers do not belong together"
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        if not isinstance(key.curve, _CURVES):
            yield f"is on the curve {key.curve.name}, which clients do not know; use P-256 or P-384"
    else:
        yield "is neither RSA nor ECDSA, and browsers know nothing else"


def chain_mistakes(chain: Sequence[x509.Certificate], key: Key | None) -> list[Mistake]:
    """What is wrong with a chain, the server's own certificate first, and whether *key* belongs to that.

    :param chain: empty when it could not be read.
    :param key: ``None`` when it could not be read.
    """
    if not chain:
        return []
    sentences = list(_order_mistakes(chain))
    mistakes = []
    if not sentences:  # else the first one may not be the server's own
        sentences += _leaf_mistakes(chain[0])
        mistakes += _match_mistakes(chain, key)
    for number, each in enumerate(chain, 1):
        algorithm = _hash_of(each)
        if each.issuer != each.subject and isinstance(algorithm, _WEAK_HASHES):
            which = "is" if number == 1 else f"has a chain whose certificate #{number} is"
            sentences.append(f"{which} signed with {algorithm.name.upper()}, which clients refuse")
    return [Mistake("certificate", sentence) for sentence in sentences] + mistakes


def domains_of(leaf: x509.Certificate) -> Iterator[str]:
    """Its names in the form of an app's domains; those that no client could ask for are left out."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    told = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    seen = set()
    for name in told:
        try:
            domain = normalise_domain(name)
        except ValueError:
            continue
        if domain not in seen:
            seen.add(domain)
            yield domain


def subject_of(certificate: x509.Certificate) -> str:
    """What people call it: its common name, or all of its subject."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(names[0].value) if names else certificate.subject.rfc4514_string()
    return _UNPRINTABLE.sub("?", text)[:80] or "no name"


# -- inner parts ---------------------------------------------------------------


def _is_consistent(key: rsa.RSAPrivateKey) -> bool:
    """Whether the numbers fit each other; whether the primes are primes is not tested."""
    numbers = key.private_numbers()
    public, p, q = numbers.public_numbers, numbers.p, numbers.q
    product = public.e * numbers.d
    return (
        p * q == public.n
        and product % (p - 1) == 1
        and product % (q - 1) == 1
        and numbers.dmp1 == numbers.d % (p - 1)
        and numbers.dmq1 == numbers.d % (q - 1)
        and numbers.iqmp * q % p == 1
    )


def _order_mistakes(chain: Sequence[x509.Certificate]) -> Iterator[str]:
    broken = _first_broken_link(chain)
    if broken is None:
        return
    if _first_broken_link(chain[::-1]) is None:
        yield "is upside down: the server's own certificate comes first, then each one's issuer"
    elif chain[broken] == chain[broken - 1]:
        yield f"has the same certificate twice, as #{broken} and #{broken + 1} ({subject_of(chain[broken])})"
    else:
        yield (
            f"is not in order: #{broken + 1} ({subject_of(chain[broken])}) did not issue "
            f"#{broken} ({subject_of(chain[broken - 1])}); "
            "the server's own certificate comes first, then each one's issuer"
        )


def _first_broken_link(chain: Sequence[x509.Certificate]) -> int | None:
    """The index of the first certificate that did not issue the one before it."""
    for index in range(1, len(chain)):
        try:
            chain[index - 1].verify_directly_issued_by(chain[index])
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return index
    return None


def _match_mistakes(chain: Sequence[x509.Certificate], key: Key | None) -> list[Mistake]:
    if key is None:
        return []
    wanted = _public_bytes(key.public_key())
    if wanted == _public_bytes(chain[0].public_key()):
        return []
    for number, each in enumerate(chain[1:], 2):
        if wanted == _public_bytes(each.public_key()):
            return [Mistake("key", f"belongs to certificate #{number} of the chain, not to the first one")]
    return [Mistake("key", f"does not belong to the certificate ({subject_of(chain[0])})")]


def _public_bytes(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _leaf_mistakes(leaf: x509.Certificate) -> Iterator[str]:
    extensions = leaf.extensions
    if next(domains_of(leaf), None) is None:
        yield "names no domain: it has no subjectAltName that a client could ask for"
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(purposes):
            yield "is not made for servers: its extendedKeyUsage lacks serverAuth"
    except x509.ExtensionNotFound:
        pass
    try:
        if not extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            yield "cannot be used: its keyUsage lacks digitalSignature, and handshakes are signed"
    except x509.ExtensionNotFound:
        pass


def _hash_of(certificate: x509.Certificate) -> Any:
    try:
        return certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
