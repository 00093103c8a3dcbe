"""What OpenSSL, as a server, reads in a hello: an oracle that has nothing of ours.

Two of them, because Python's own and the one behind pyOpenSSL are often of
different age.
"""

from __future__ import annotations

import ssl

from OpenSSL import SSL

__all__ = ["name_seen_by_openssl", "name_seen_by_pyopenssl"]


def name_seen_by_openssl(data: bytes) -> str | None:
    """The name that OpenSSL finds in a hello: ``""`` for none, ``None`` when it never got so far."""
    seen: list[str] = []

    def note(tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int:
        seen.append(name or "")
        return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR  # go no further

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.sni_callback = note
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    tls = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    try:
        tls.do_handshake()
    except ssl.SSLError:
        pass
    return seen[0] if seen else None


def name_seen_by_pyopenssl(data: bytes) -> str | None:
    """The same as the OpenSSL sees it that ends TLS here."""
    seen: list[str] = []
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_tlsext_servername_callback(
        lambda tls: seen.append((tls.get_servername() or b"").decode("latin-1"))
    )
    tls = SSL.Connection(context, None)
    tls.set_accept_state()
    tls.bio_write(data)
    try:
        tls.do_handshake()
    except SSL.Error:
        pass
    return seen[0] if seen else None
