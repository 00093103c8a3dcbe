"""PEM texts, taken apart into their blocks (RFC 7468).

Says what a text holds instead of what was asked for; what is inside a block
is somebody else's matter.
"""

from __future__ import annotations

import re

__all__ = ["PemMistake", "certificate_blocks", "private_key_block"]

#: No chain and no key comes near it.
_MAX_BYTES = 256 * 1024

# Up to the next five dashes and not beyond, so that the search stays linear.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----[^-]*(?:-{1,4}(?!-)[^-]*)*-----END \1-----")
_CERTIFICATES = (b"CERTIFICATE", b"X509 CERTIFICATE")
_PRIVATE_KEYS = (b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY")
_CALLED = {
    b"CERTIFICATE": "a certificate",
    b"X509 CERTIFICATE": "a certificate",
    b"TRUSTED CERTIFICATE": "a certificate in OpenSSL's own format",
    b"CERTIFICATE REQUEST": "a request for a certificate",
    b"NEW CERTIFICATE REQUEST": "a request for a certificate",
    b"PKCS7": "a PKCS #7 bundle",
    b"PUBLIC KEY": "a public key",
    b"RSA PUBLIC KEY": "a public key",
    b"EC PARAMETERS": "only the parameters of a key",
    b"OPENSSH PRIVATE KEY": "a key for SSH",
    b"DSA PRIVATE KEY": "a DSA key, which TLS does not use any more",
    b"ENCRYPTED PRIVATE KEY": "an encrypted key",
}


class PemMistake(ValueError):
    """A text without what was looked for; the sentence lacks its subject."""


def certificate_blocks(text: bytes) -> list[bytes]:
    """Every certificate in *text*, in order; whatever else is there is passed over.

    :raises PemMistake: there is none.
    """
    blocks = _blocks(text)
    found = [block for label, block in blocks if label in _CERTIFICATES]
    if not found:
        raise PemMistake(f"is no certificate but {_told(blocks)}")
    return found


def private_key_block(text: bytes) -> bytes:
    """The one private key in *text*; certificates beside it are passed over.

    :raises PemMistake: there is none, it is encrypted, or there are several.
    """
    blocks = _blocks(text)
    found = [block for label, block in blocks if label in _PRIVATE_KEYS]
    if any(label == b"ENCRYPTED PRIVATE KEY" for label, _ in blocks) or any(
        b"Proc-Type: 4,ENCRYPTED" in block for block in found
    ):
        raise PemMistake("is encrypted; take the passphrase away with: openssl pkey -in FILE")
    if not found:
        raise PemMistake(f"is no private key but {_told(blocks)}")
    if len(found) > 1:
        raise PemMistake(f"holds {len(found)} private keys instead of one")
    return found[0]


def _blocks(text: bytes) -> list[tuple[bytes, bytes]]:
    if len(text) > _MAX_BYTES:
        raise PemMistake(f"is too long: more than {_MAX_BYTES} bytes")
    if not text.strip():
        raise PemMistake("is empty")
    # SEQUENCE, then a length of two bytes: what certificates and keys begin with in DER.
    if text.startswith(b"\x30\x82"):
        raise PemMistake("is DER and not PEM; convert it with openssl, -inform der")
    blocks = [(found[1], found[0] + b"\n") for found in _BLOCK.finditer(text)]
    if not blocks:
        raise PemMistake("is not PEM: it has no -----BEGIN …----- with its -----END …-----")
    return blocks


def _told(blocks: list[tuple[bytes, bytes]]) -> str:
    label = blocks[0][0]
    if label in _PRIVATE_KEYS:
        return "a private key"
    return _CALLED.get(label, f"something else ({label.decode('ascii')})")
