"""Certificates that are trusted, from PEM text: those, or one sentence.

Knows nothing of files, dates and names: whether a certificate is accepted is
decided where a connection is made.
"""

from __future__ import annotations

import re

from cryptography import x509

__all__ = ["MAX_AUTHORITIES_BYTES", "is_pem", "read_authorities"]

#: More than the trust store of any operating system has.
MAX_AUTHORITIES_BYTES = 1 << 20

_BLOCK = re.compile(r"^-----BEGIN ([A-Z0-9 ]+)-----", re.MULTILINE)


def is_pem(text: str) -> bool:
    """Whether *text* is PEM, right or wrong, and not the name of a file."""
    return "-----BEGIN " in text


def read_authorities(pem: str) -> list[x509.Certificate]:
    """The certificates in *pem*, in its order; at least one.

    :raises ValueError: with a sentence that says what is wrong, and that
        contains nothing of the text.
    """
    if len(pem) > MAX_AUTHORITIES_BYTES:
        raise ValueError(f"has more than {MAX_AUTHORITIES_BYTES} bytes, which no set of authorities needs")
    kinds = _BLOCK.findall(pem)
    if any(kind.endswith("PRIVATE KEY") for kind in kinds):
        raise ValueError("has a private key in it; write certificates alone")
    strange = [kind for kind in kinds if kind != "CERTIFICATE"]
    if strange:
        raise ValueError(f'has a block "{strange[0]}" in it; only CERTIFICATE blocks are read')
    if not kinds:
        raise ValueError("has no certificate in it (expected PEM: -----BEGIN CERTIFICATE-----)")
    try:
        found = x509.load_pem_x509_certificates(pem.encode("utf-8"))
    except ValueError:
        found = []
    if len(found) != len(kinds):
        raise ValueError("has a certificate in it that is cut short or broken")
    return found
