"""Getting one page: from a file in a thread, or from a URL.

Whatever is wrong with it comes out as one sentence; nothing is tried twice.
Who wants the page, and what becomes of it, is not known here.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionLost, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from scalingo_proxy.errors import ScalingoProxyError
from scalingo_proxy.routing.own_pages import is_url
from scalingo_proxy.version import VERSION
from scalingo_proxy.wire.error_answer import Page

__all__ = ["FETCH_SECONDS", "MAX_PAGE_BYTES", "PageFetcher", "PageRefused"]

#: The largest page.
MAX_PAGE_BYTES = 10 * 1024 * 1024

#: How long one may take, from the name look-up to its last byte.
FETCH_SECONDS = 10.0

_MAX_REDIRECTS = 5

_REDIRECTS = frozenset((301, 302, 303, 307, 308))

#: What may stand in a Content-Type (RFC 9110 §8.3), short enough for every answer.
_CONTENT_TYPE = re.compile(rb"[!-~]+/[!-~][ -~]{0,100}")


class PageRefused(ScalingoProxyError):
    """A page that cannot be had; the text is a sentence that lacks its subject."""


class PageFetcher:
    """Gets pages.

    :param reactor: the reactor that connections are made with.
    :param agent: an :class:`~twisted.web.iweb.IAgent`; one that verifies
        certificates as browsers do when left out.
    """

    def __init__(self, reactor: Any, agent: Any = None) -> None:
        self._reactor = reactor
        self._agent = agent

    def fetch(self, source: str) -> Deferred[Page]:
        """The page from *source*, a URL or the name of a file.

        Fails with PageRefused; may be cancelled.
        """
        if not is_url(source):
            pool = self._reactor.getThreadPool()
            return deferToThreadPool(self._reactor, pool, _read_file, source)
        fetching: Deferred[Page] = Deferred.fromCoroutine(self._fetch(source))
        fetching.addTimeout(FETCH_SECONDS, self._reactor)
        return fetching.addErrback(_explain)

    async def _fetch(self, url: str) -> Page:
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._ask(url)
            if response.code not in _REDIRECTS:
                return await _page_of(response)
            _throw_away(response)
            location = response.headers.getRawHeaders("location", [""])[0]
            target = urljoin(url, location)
            if not location or not is_url(target):
                raise PageRefused(f"answered {response.code} without a usable Location")
            if url.startswith("https:") and not target.startswith("https:"):
                raise PageRefused(f"leads from https to {target}")
            url = target
        raise PageRefused(f"leads on more than {_MAX_REDIRECTS} times")

    def _ask(self, url: str) -> Deferred[Any]:
        if self._agent is None:
            policy = BrowserLikePolicyForHTTPS()  # type: ignore[no-untyped-call]
            self._agent = Agent(self._reactor, policy)  # type: ignore[no-untyped-call]
        headers = Headers({"User-Agent": [f"scalingo-proxy/{VERSION}"], "Accept": ["text/html, */*;q=0.5"]})
        try:
            asking: Deferred[Any] = self._agent.request(b"GET", url.encode("ascii"), headers)
        except ValueError as error:  # of the host, most likely
            raise PageRefused(f"cannot be asked: {error}") from None
        return asking


def _read_file(path: str) -> Page:
    try:
        with open(path, "rb") as file:
            body = file.read(MAX_PAGE_BYTES + 1)
    except OSError as error:
        raise PageRefused(f"cannot be read: {error.strerror or error}") from None
    if len(body) > MAX_PAGE_BYTES:
        raise PageRefused(_TOO_LARGE)
    return Page(body)


_TOO_LARGE = f"has more than {MAX_PAGE_BYTES >> 20} MB"


def _explain(failure: Failure) -> Page:
    """Why a URL gave no page, as PageRefused."""
    error = failure.value
    if isinstance(error, PageRefused):
        raise error
    if isinstance(error, ResponseFailed) and error.reasons:
        error = error.reasons[0].value
    if isinstance(error, defer.TimeoutError | CancelledError):
        raise PageRefused(f"did not answer whole within {FETCH_SECONDS:g} seconds")
    if isinstance(error, SSL.Error | VerificationError):
        raise PageRefused("has a certificate that cannot be verified")
    if isinstance(error, DNSLookupError):
        raise PageRefused("has a host that nobody knows")
    if isinstance(error, ConnectionLost):
        raise PageRefused("closed the connection without an answer")
    if isinstance(error, ConnectError):
        raise PageRefused(f"cannot be connected to: {str(error).rstrip('.')}")
    raise PageRefused(f"cannot be fetched: {error or type(error).__name__}")


def _throw_away(response: Any) -> None:
    response.deliverBody(_Body(0))


def _page_of(response: Any) -> Deferred[Page]:
    """The page in a whole answer.

    :raises PageRefused: so does the Deferred.
    """
    refusal = ""
    encodings = response.headers.getRawHeaders("content-encoding", ["identity"])
    if response.code != 200:
        refusal = f"answered {response.code}"
    elif encodings != ["identity"]:
        refusal = f"is encoded ({', '.join(encodings)})"
    elif isinstance(response.length, int) and response.length > MAX_PAGE_BYTES:
        refusal = _TOO_LARGE
    if refusal:
        _throw_away(response)
        raise PageRefused(refusal)
    body = _Body(MAX_PAGE_BYTES)
    response.deliverBody(body)
    told = response.headers.getRawHeaders(b"content-type", [b""])[0]
    kind = told if _CONTENT_TYPE.fullmatch(told) else b"text/html; charset=utf-8"
    return body.whole.addCallback(lambda data: Page(data, kind))


class _Body(Protocol):
    """Collects a body up to a limit, and wants nothing of what is larger."""

    transport: Any

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._received = bytearray()
        self.whole: Deferred[bytes] = Deferred(lambda _: self._stop())
        self._is_over = False

    def connectionMade(self) -> None:
        if not self._limit:
            self._is_over = True
            self._stop()

    def dataReceived(self, data: bytes) -> None:
        if self._is_over:
            return
        self._received += data
        if len(self._received) > self._limit:
            self._is_over = True
            self._stop()
            self.whole.errback(PageRefused(_TOO_LARGE))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._is_over or self.whole.called:
            return
        self._is_over = True
        # Without a length, the end of the connection is all there is to go by.
        if reason.check(ResponseDone, PotentialDataLoss):  # type: ignore[no-untyped-call]
            self.whole.callback(bytes(self._received))
        else:
            self.whole.errback(PageRefused("broke off"))

    def _stop(self) -> None:
        if self.transport is not None:
            # What stands for the connection here can only close it in order, which a peer that
            # speaks TLS can make last for ever.
            transport = getattr(self.transport, "_producer", None) or self.transport
            getattr(transport, "abortConnection", transport.loseConnection)()
