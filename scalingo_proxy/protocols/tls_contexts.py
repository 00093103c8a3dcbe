"""OpenSSL's contexts: one for each certificate, made when it is first asked for.

The settings that every TLS connection of the edge has in common stand here.
Which certificate belongs to which name is the index's business.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from hashlib import sha256

from OpenSSL import SSL
from twisted.logger import Logger

from scalingo_proxy.model import App, Certificate, CertificateChange
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex
from scalingo_proxy.protocols.tls_certificates import install
from scalingo_proxy.protocols.tls_engine import use_protocols

__all__ = ["CONTEXTS_KEPT", "Contexts", "server_context"]

_log = Logger()

#: How many contexts are kept: 23 KiB each, and 0.4 ms to make one anew.
CONTEXTS_KEPT = 8192

# The suites of TLS 1.2 that Scalingo documents
# (doc.scalingo.com/security/cryptography/tls), each for both kinds of key.
# DHE stands last, because it costs the server most.  Those of TLS 1.3 are
# OpenSSL's default.
_CIPHERS = b":".join(
    (
        b"ECDHE-ECDSA-AES256-GCM-SHA384",
        b"ECDHE-RSA-AES256-GCM-SHA384",
        b"ECDHE-ECDSA-AES128-GCM-SHA256",
        b"ECDHE-RSA-AES128-GCM-SHA256",
        b"DHE-RSA-AES256-GCM-SHA384",
    )
)
_DH_GROUP = os.path.join(os.path.dirname(__file__), "ffdhe2048.pem")
_OPTIONS = SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION


class Contexts:
    """The context that a handshake is made with, by server name and app.

    A certificate that was exchanged is served to the next handshake; open
    connections keep what they began with.

    :param index: the certificates.
    :param with_http2: whether ``h2`` is offered.
    :param kept: how many contexts are kept; the one unused for longest goes.
    """

    def __init__(
        self, index: CertificateIndex, *, with_http2: bool = True, kept: int = CONTEXTS_KEPT
    ) -> None:
        self._index = index
        self._protocols = (b"h2", b"http/1.1") if with_http2 else (b"http/1.1",)
        self._kept = kept
        self._contexts: OrderedDict[str, tuple[Certificate, SSL.Context | None]] = OrderedDict()
        index.watch(self._certificates_changed)

    def __len__(self) -> int:
        return len(self._contexts)

    def find(self, server_name: str, app: App) -> tuple[Certificate, SSL.Context] | None:
        """The certificate, and its context, for *app* and a client that asks for *server_name*.

        :param server_name: lower case; ``""`` when the client told none.
        :return: ``None`` when no certificate may be served.
        """
        certificate = self._index.for_app(app, server_name)
        if certificate is None:
            return None
        kept = self._contexts.get(certificate.name)
        if kept is not None and kept[0] is certificate:
            self._contexts.move_to_end(certificate.name)
        else:
            kept = self._make(certificate)
        return kept if kept[1] is not None else None  # type: ignore[return-value] # mypy sees no further

    def _make(self, certificate: Certificate) -> tuple[Certificate, SSL.Context | None]:
        context: SSL.Context | None
        try:
            context = server_context(certificate, self._protocols)
        except Exception:
            # Kept as well: whoever asks again shall not cost more.
            _log.failure("the certificate {name} cannot be served", name=certificate.name)
            context = None
        made = self._contexts[certificate.name] = (certificate, context)
        if len(self._contexts) > self._kept:
            self._contexts.popitem(last=False)
        return made

    def _certificates_changed(self, change: CertificateChange) -> None:
        """Keys that are not served any more do not stay in memory."""
        for name in (*change.removed, *(certificate.name for certificate in change.updated)):
            self._contexts.pop(name, None)


def server_context(certificate: Certificate, protocols: tuple[bytes, ...]) -> SSL.Context:
    """A context that serves *certificate*: TLS 1.2 and 1.3, forward secrecy only.

    A session resumes within one context alone: each has ticket keys of its
    own, and a session id context on top, so that nobody enters another
    certificate's connections with a ticket (CVE-2025-23419).

    :param protocols: what is chosen from ALPN offers, the best first.
    :raises OpenSSL.SSL.Error: OpenSSL refuses the certificate.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # idle connections hold no buffers
    context.set_cipher_list(_CIPHERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # tickets alone: they take no memory
    context.set_session_id(sha256(certificate.chain).digest())
    if install(context, certificate):
        context.load_tmp_dh(_DH_GROUP)  # of use with an RSA key alone, and 0.1 ms of work
    use_protocols(context, protocols)
    return context
