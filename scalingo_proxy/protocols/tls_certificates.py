"""Certificates and their keys, read from PEM and judged before a client meets them.

X.509 is known here and nowhere else.  Nothing is read from a disk, no clock is
asked, and no sentence about a mistake contains a part of a key.
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
from OpenSSL import SSL
from OpenSSL.crypto import X509

from scalingo_proxy.errors import CertificateMistake, Mistake
from scalingo_proxy.model import Certificate
from scalingo_proxy.routing.domains import normalise_domain
from scalingo_proxy.wire.pem import PemMistake, certificate_blocks, private_key_block

__all__ = [
    "date_mistakes",
    "install",
    "load_certificate",
    "read_certificate",
    "stored_certificate",
    "trial_context",
]

_MAX_CHAIN = 10
_RSA_BITS = range(2048, 4097)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_WEAK_HASHES = (hashes.MD5, hashes.SHA1)

_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def load_certificate(name: str, chain_pem: bytes, key_pem: bytes, now: float) -> Certificate:
    """Read a certificate that somebody wants to have served from now on.

    :param chain_pem: the server's own certificate, then each one's issuer;
        the root may be left out.
    :param key_pem: the private key of the first one, not encrypted.
    :param now: seconds since the epoch.
    :raises CertificateMistake: with everything that is wrong with it.
    """
    certificate = read_certificate(name, chain_pem, key_pem)
    mistakes = date_mistakes(certificate, now)
    if mistakes:
        raise CertificateMistake(mistakes)
    return certificate


def trial_context() -> SSL.Context:
    """What OpenSSL's opinion is asked with; making one is a quarter of the work of reading a certificate."""
    return SSL.Context(SSL.TLS_SERVER_METHOD)


def read_certificate(
    name: str, chain_pem: bytes, key_pem: bytes, trial: SSL.Context | None = None
) -> Certificate:
    """As :func:`load_certificate`, whatever the date is.

    :param trial: a :func:`trial_context` for all the certificates that are
        read in a row, in one thread; left out: one of its own.
    :raises CertificateMistake:
    """
    chain, mistakes = _read_chain(chain_pem)
    key, key_mistakes = _read_key(key_pem)
    mistakes += key_mistakes
    mistakes += _chain_mistakes(chain, key)
    if mistakes or key is None:
        raise CertificateMistake(mistakes)
    certificate = _certificate(name, chain, _pem_of(chain), _pem_of_key(key))
    try:
        # OpenSSL has the last word, now rather than at the first handshake.
        _try_out(trial or trial_context(), chain, key)
    except SSL.Error as error:
        sentence = f"is refused by OpenSSL: {_reason(error)}"
        raise CertificateMistake([Mistake("certificate", sentence)]) from None
    return certificate


def stored_certificate(name: str, chain_pem: bytes, key_pem: bytes) -> Certificate:
    """One that was judged before and kept since; only what is told of it is read.

    :raises ValueError: what was kept is damaged.
    """
    leaf = x509.load_pem_x509_certificate(chain_pem)
    private_key_block(key_pem)
    return _certificate(name, (leaf,), chain_pem, key_pem)


def date_mistakes(certificate: Certificate, now: float) -> list[Mistake]:
    """Whether any certificate of the chain has expired, or is not valid yet."""
    mistakes = []
    for number, each in enumerate(x509.load_pem_x509_certificates(certificate.chain), 1):
        link = "" if number == 1 else f"has a chain whose certificate #{number} ({_subject(each)}) "
        if now >= each.not_valid_after_utc.timestamp():
            mistakes.append(f"{link}expired on {each.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
        elif now < each.not_valid_before_utc.timestamp():
            mistakes.append(f"{link}is not valid before {each.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC")
    return [Mistake("certificate", sentence) for sentence in mistakes]


def install(context: SSL.Context, certificate: Certificate) -> bool:
    """Let *context* serve *certificate*.

    :return: whether its key is RSA.
    :raises OpenSSL.SSL.Error: OpenSSL refuses it.
    """
    leaf, *others = x509.load_pem_x509_certificates(certificate.chain)
    context.use_certificate(leaf)
    for other in others:
        context.add_extra_chain_cert(other)
    key = _trusted_key(certificate.key)
    context.use_privatekey(key)
    context.check_privatekey()
    return isinstance(key, rsa.RSAPrivateKey)


def _try_out(context: SSL.Context, chain: Sequence[x509.Certificate], key: _Key) -> None:
    """As :func:`install`, in a context that is used again: each pair takes the place of the one before.

    That they belong together is known already.
    """
    leaf, *others = chain
    context.use_certificate(leaf)
    for other in others:
        X509.from_cryptography(other)
    context.use_privatekey(key)
    context.check_privatekey()


# -- reading -------------------------------------------------------------------


def _read_chain(pem: bytes) -> tuple[tuple[x509.Certificate, ...], list[Mistake]]:
    try:
        blocks = certificate_blocks(pem)
    except PemMistake as error:
        return (), [Mistake("certificate", str(error))]
    if len(blocks) > _MAX_CHAIN:
        sentence = f"holds {len(blocks)} certificates; a chain has at most {_MAX_CHAIN}"
        return (), [Mistake("certificate", sentence)]
    chain, mistakes = [], []
    for number, block in enumerate(blocks, 1):
        try:
            certificate = x509.load_pem_x509_certificate(block)
            certificate.extensions  # noqa: B018 - read late, and damaged ones are refused here
            chain.append(certificate)
        except (ValueError, UnsupportedAlgorithm):
            mistakes.append(Mistake("certificate", f"cannot be read: certificate #{number} is damaged"))
    return (() if mistakes else tuple(chain)), mistakes


def _read_key(pem: bytes) -> tuple[_Key | None, list[Mistake]]:
    try:
        key = _trusted_key(private_key_block(pem))
        return key, [Mistake("key", sentence) for sentence in _key_mistakes(key)]
    except PemMistake as error:
        return None, [Mistake("key", str(error))]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None, [Mistake("key", "cannot be read: it is damaged, or of a kind that is not known")]


def _trusted_key(pem: bytes) -> Any:
    # The library would test the primes of an RSA key: 50 ms for 2048 bits and
    # 360 ms for 4096, with everybody else waiting.
    return serialization.load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)


def _pem_of(chain: Sequence[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)


def _pem_of_key(key: _Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(
    name: str, chain: Sequence[x509.Certificate], chain_pem: bytes, key_pem: bytes
) -> Certificate:
    leaf = chain[0]
    return Certificate(
        name,
        chain_pem,
        key_pem,
        tuple(_domains(leaf)),
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
        leaf.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def _domains(leaf: x509.Certificate) -> Iterator[str]:
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


# -- judging -------------------------------------------------------------------


def _key_mistakes(key: Any) -> Iterator[str]:
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


def _chain_mistakes(chain: Sequence[x509.Certificate], key: _Key | None) -> list[Mistake]:
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


def _order_mistakes(chain: Sequence[x509.Certificate]) -> Iterator[str]:
    broken = _first_broken_link(chain)
    if broken is None:
        return
    if _first_broken_link(chain[::-1]) is None:
        yield "is upside down: the server's own certificate comes first, then each one's issuer"
    elif chain[broken] == chain[broken - 1]:
        yield f"has the same certificate twice, as #{broken} and #{broken + 1} ({_subject(chain[broken])})"
    else:
        yield (
            f"is not in order: #{broken + 1} ({_subject(chain[broken])}) did not issue "
            f"#{broken} ({_subject(chain[broken - 1])}); "
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


def _match_mistakes(chain: Sequence[x509.Certificate], key: _Key | None) -> list[Mistake]:
    if key is None:
        return []
    wanted = _public_bytes(key.public_key())
    if wanted == _public_bytes(chain[0].public_key()):
        return []
    for number, each in enumerate(chain[1:], 2):
        if wanted == _public_bytes(each.public_key()):
            return [Mistake("key", f"belongs to certificate #{number} of the chain, not to the first one")]
    return [Mistake("key", f"does not belong to the certificate ({_subject(chain[0])})")]


def _public_bytes(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _leaf_mistakes(leaf: x509.Certificate) -> Iterator[str]:
    extensions = leaf.extensions
    if next(_domains(leaf), None) is None:
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


# -- what is told --------------------------------------------------------------

_UNPRINTABLE = re.compile(r"[^ -~]")


def _subject(certificate: x509.Certificate) -> str:
    """What people call it: its common name, or all of its subject."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(names[0].value) if names else certificate.subject.rfc4514_string()
    return _UNPRINTABLE.sub("?", text)[:80] or "no name"


def _reason(error: SSL.Error) -> str:
    found = error.args[0] if error.args else ()
    return str(found[-1][2]) if found else "no reason told"
