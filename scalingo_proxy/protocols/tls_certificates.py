"""Certificates and their keys, read from PEM and judged before a client meets them.

What is judged is in :mod:`.tls_certificate_checks`.  Nothing is read from a disk,
no clock is asked, and no sentence about a mistake contains a part of a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL
from OpenSSL.crypto import X509

from scalingo_proxy.errors import CertificateMistake, Mistake
from scalingo_proxy.model import Certificate
from scalingo_proxy.protocols.tls_certificate_checks import (
    Key,
    chain_mistakes,
    domains_of,
    key_mistakes,
    subject_of,
)
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
    mistakes += chain_mistakes(chain, key)
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
        link = "" if number == 1 else f"has a chain whose certificate #{number} ({subject_of(each)}) "
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


def _try_out(context: SSL.Context, chain: Sequence[x509.Certificate], key: Key) -> None:
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


def _read_key(pem: bytes) -> tuple[Key | None, list[Mistake]]:
    try:
        key = _trusted_key(private_key_block(pem))
        return key, [Mistake("key", sentence) for sentence in key_mistakes(key)]
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


def _pem_of_key(key: Key) -> bytes:
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
        tuple(domains_of(leaf)),
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
        leaf.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def _reason(error: SSL.Error) -> str:
    found = error.args[0] if error.args else ()
    return str(found[-1][2]) if found else "no reason told"
