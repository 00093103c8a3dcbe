"""What travels on, in which words: heads towards backends and clients.

The rules are those of RFC 9110 §7.6 and of Scalingo's documented headers:
hop-by-hop fields stay behind, the forwarded headers are ours to set, and the
order and case of everything else is kept.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from scalingo_proxy.model import RouteQuery
from scalingo_proxy.wire.grammar import AS_BACKENDS_READ, Fields
from scalingo_proxy.wire.http1_body import FramingKind
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead, join_lines, last_lines

__all__ = [
    "ClientIdentity",
    "acceptable_request_id",
    "informational_head",
    "own_lines",
    "relayed_trailers",
    "request_head_for_backend",
    "response_head_for_client",
]

# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_CHUNKED = FramingKind.CHUNKED

_REQUEST_ID = re.compile(rb"[A-Za-z0-9+=/\-]{20,128}")
_REQUEST_START = re.compile(rb"t=[0-9]{1,12}(?:\.[0-9]{1,6})?")

#: Names that would frame, route or authenticate if a trailer were merged into
#: the head (RFC 9110 §6.5.1).
_FORBIDDEN_TRAILERS = frozenset(
    b"transfer-encoding content-length host connection keep-alive proxy-connection te trailer upgrade "
    b"authorization proxy-authorization proxy-authenticate www-authenticate cookie set-cookie "
    b"cache-control expect max-forwards pragma range age date expires location retry-after vary warning "
    b"content-encoding content-type content-range forwarded proxy http2-settings "
    b"x-forwarded-for x-forwarded-proto x-forwarded-port x-forwarded-host x-real-ip x-request-id "
    b"x-request-start".split()
)


#: What records call a peer on a unix socket, which has no address to forward.
_NO_ADDRESS = "unix:"


def _write(chain: str, real: str, scheme: bytes, port: bytes) -> bytes:
    lines = b"X-Forwarded-Proto: %b\r\nX-Forwarded-Port: %b\r\n" % (scheme, port)
    if not chain:
        return lines  # a unix socket, and nobody told who is behind it
    who = b"X-Forwarded-For: %b\r\nX-Real-IP: %b\r\n" % (chain.encode("ascii"), real.encode("ascii"))
    return who + lines


@lru_cache(maxsize=4096)  # clients come again: 0.2 µs against 0.9
def _lines_of(peer: str, scheme: str, port: int) -> bytes:
    """What is said of a client whose own words are not believed."""
    who = "" if peer == _NO_ADDRESS else peer
    return _write(who, who, scheme.encode(), b"%d" % port)


def acceptable_request_id(values: Sequence[bytes]) -> bytes | None:
    """The first of a client's request ids that is kept: 20–128 of ``A-Za-z0-9+=/-``."""
    for value in values:
        if _REQUEST_ID.fullmatch(value):
            return value
    return None


class ClientIdentity:
    """Who stands at the other end of a client connection, in forwarded words.

    Of one client there may be one for many connections (each door keeps those
    it knows), but for TLS that ends here one for each.  *peer* is the address
    that connected (or that a PROXY header told); when it is trusted, what it
    says about the client before it is believed.

    :param peer: an IP address as text; ``"unix:"`` or ``""`` for a unix socket.
    :param scheme: ``"http"`` or ``"https"``.
    :param port: what ``X-Forwarded-Port`` says.
    :param is_trusted: tells whether an address is a trusted proxy.
    :ivar tls: the version of TLS that ends here, or ``"-"``.
    :ivar covers: whether the certificate of this connection covers a host;
        None without TLS.
    :ivar query: what the resolver was asked last for it.
    :ivar same_lines: the forwarded headers of an untrusted peer, the same for every request;
        ``b""`` until there is one, and for a trusted peer.
    """

    __slots__ = (
        "_is_trusted",
        "covers",
        "peer",
        "port",
        "query",
        "same_lines",
        "scheme",
        "tls",
        "trusted",
    )

    def __init__(self, peer: str, scheme: str, port: int, is_trusted: Callable[[str], bool] | None) -> None:
        self.peer = peer
        self.scheme = scheme
        self.port = port
        self.trusted = is_trusted is not None and is_trusted(peer)
        self._is_trusted = is_trusted
        self.tls = "-"
        self.covers: Callable[[str], bool] | None = None
        self.query: RouteQuery | None = None
        self.same_lines = b""

    def over_tls(self, version: str, covers: Callable[[str], bool]) -> ClientIdentity:
        """The same client, on a connection whose TLS ends here.

        :param version: of TLS.
        :param covers: whether the certificate of the connection covers a host.
        """
        identity = ClientIdentity(self.peer, "https", self.port, self._is_trusted)
        identity.tls, identity.covers = version, covers
        return identity

    def client_address(self, head: RequestHead) -> str:
        """The client's own address: the right-most one that is not a trusted proxy."""
        if not self.trusted:
            return self.peer
        return self._real_address(self._chain(head))

    def client_scheme(self, head: RequestHead) -> str:
        """How the client itself asked: ``"http"`` or ``"https"``."""
        if self.trusted:
            told = head.special.get(b"x-forwarded-proto", (b"",))[-1].lower()
            if told in (b"http", b"https"):
                return told.decode("ascii")
        return self.scheme

    def lines(self, head: RequestHead) -> bytes:
        """The forwarded headers for one request."""
        if not self.trusted:
            if not self.same_lines:
                self.same_lines = _lines_of(self.peer, self.scheme, self.port)
            return self.same_lines
        chain = self._chain(head)
        special = head.special
        port = special.get(b"x-forwarded-port", (b"",))[-1]
        lines = _write(
            ", ".join(chain),
            self._real_address(chain),
            self.client_scheme(head).encode("ascii"),
            port if re.fullmatch(rb"[0-9]{1,5}", port) else b"%d" % self.port,
        )
        for name, words in ((b"forwarded", b"Forwarded"), (b"x-forwarded-host", b"X-Forwarded-Host")):
            for value in special.get(name, ()):
                lines += b"%b: %b\r\n" % (words, value)
        return lines

    def _chain(self, head: RequestHead) -> list[str]:
        values = b",".join(head.special.get(b"x-forwarded-for", ()))
        chain = [part.strip(b" \t").decode("latin-1") for part in values.split(b",") if part.strip(b" \t")]
        # An entry that is not printable ASCII cannot be an address; drop it.
        chain = [entry for entry in chain if entry.isascii() and entry.isprintable()]
        return [*chain, self.peer] if self.peer else chain

    def _real_address(self, chain: list[str]) -> str:
        assert self._is_trusted is not None
        real = self.peer
        for entry in reversed(chain):
            try:
                real = _plain_address(entry)
            except ValueError:
                break  # beyond a word that is no address nothing can be believed
            if not self._is_trusted(real):
                break
        return real


def _plain_address(text: str) -> str:
    """An IP address in its shortest form; an IPv4 one mapped into IPv6 is IPv4.

    :raises ValueError: when it is none, a zone included: that is one machine's own name for a link.
    """
    if ":" not in text:
        return str(ipaddress.IPv4Address(text))
    if "%" in text:
        raise ValueError("an address with a zone")
    address = ipaddress.IPv6Address(text)
    return str(address.ipv4_mapped or address)


def request_head_for_backend(
    head: RequestHead, identity: ClientIdentity, request_id: bytes, wall_time: float
) -> bytes:
    """The request head in the words that the backend reads, always HTTP/1.1."""
    words = head.words
    if not words:
        lines = head.lines or join_lines(head.fields) + own_lines(head)
        words = b"%b %b HTTP/1.1\r\n%b" % (head.method, head.target, lines)
    forwarded = identity.same_lines or identity.lines(head)
    if identity.trusted and b"x-request-start" in head.special:
        told = head.special[b"x-request-start"][0]
        if _REQUEST_START.fullmatch(told):
            return b"%b%bX-Request-ID: %b\r\nX-Request-Start: %b\r\n\r\n" % (
                words,
                forwarded,
                request_id,
                told,
            )
    # One format for all that is new: 0.3 µs less.
    return b"%b%bX-Request-ID: %b\r\nX-Request-Start: t=%.3f\r\n\r\n" % (
        words,
        forwarded,
        request_id,
        wall_time,
    )


def own_lines(head: RequestHead) -> bytes:
    """What the connection with the backend needs to be told, as lines; nothing for most."""
    lines = b""
    if head.framing.kind is _CHUNKED and b"transfer-encoding" not in head.special:
        lines = b"Transfer-Encoding: chunked\r\n"  # framed otherwise at the edge, as in HTTP/2
    if head.expect_continue:
        lines += b"Expect: 100-continue\r\n"
    if head.upgrade:
        lines += b"Connection: upgrade\r\nUpgrade: %b\r\n" % head.upgrade
    elif b"te" in head.special and _accepts_trailers(head.special[b"te"]):
        lines += b"Connection: TE\r\nTE: trailers\r\n"
    return lines


def _accepts_trailers(values: Sequence[bytes]) -> bool:
    return any(part.strip(b" \t").lower() == b"trailers" for part in b",".join(values).split(b","))


def response_head_for_client(head: ResponseHead, client_version: int, keep_alive: bool) -> bytes:
    """The response head in the words that the client reads.

    A body without a known length becomes chunked for HTTP/1.1 and ends with
    the connection for HTTP/1.0.

    :param client_version: the minor version of the request.
    :param keep_alive: whether this connection carries further requests.
    """
    if client_version != 1:
        last = b"Connection: keep-alive\r\n\r\n" if keep_alive else b"Connection: close\r\n\r\n"
        return _begun(head) + last
    words = head.words or _begun(head) + last_lines(head)
    return words if keep_alive else words[:-2] + b"Connection: close\r\n\r\n"


def _begun(head: ResponseHead) -> bytes:
    """The status line and the fields."""
    if head.words:
        return head.words[: -len(last_lines(head))]
    return b"HTTP/1.1 %d %b\r\n%b" % (head.status, head.reason, join_lines(head.fields))


def informational_head(head: ResponseHead) -> bytes:
    """A 1xx response, the switch of protocols included."""
    parts = [_begun(head)]
    if head.status == 101:
        parts.append(b"Connection: upgrade\r\nUpgrade: %b\r\n" % head.upgrade)
    parts.append(b"\r\n")
    return b"".join(parts)


def relayed_trailers(trailers: Fields) -> Fields:
    """The trailers that may travel on (RFC 9110 §6.5.1)."""
    return [
        field
        for field in trailers
        if (name := field[0].translate(AS_BACKENDS_READ)) not in _FORBIDDEN_TRAILERS
        and not name.startswith((b"x-scalingo-", b"scalingo-"))
    ]
