"""What each kind of probe says over its connection: nothing, a handshake, or one GET.

The TLS, where there is any, is below these protocols and complete when they
are connected.  Verdicts go to a :class:`~scalingo_proxy.protocols.probe_attempt.ProbeAttempt`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from scalingo_proxy.errors import BadResponse
from scalingo_proxy.protocols.probe_attempt import ProbeAttempt
from scalingo_proxy.wire.grammar import FramingError
from scalingo_proxy.wire.http1_body import BodyReader
from scalingo_proxy.wire.http1_head import ResponseHead, head_end
from scalingo_proxy.wire.http1_response import parse_response_head
from scalingo_proxy.wire.status_ranges import StatusRanges

__all__ = ["ConnectProbe", "GetProbe"]

#: The most that is read of an answer.
MAX_ANSWER_BYTES = 16384

#: More interim responses than this are no progress.
_MAX_INFORMATIONAL = 10


class ConnectProbe(Protocol):
    """Passes when it is connected, and leaves.

    :ivar preface: what goes first over the connection, before TLS if there is any.

    :param sentence: what being connected means.
    """

    transport: Any

    def __init__(self, attempt: ProbeAttempt, preface: bytes, sentence: str) -> None:
        self.preface = preface
        self._attempt = attempt
        self._sentence = sentence

    def connectionMade(self) -> None:
        self._attempt.connected(self.transport)
        self._send_preface()
        self._begin()

    def _send_preface(self) -> None:
        if self.preface and not ISSLTransport.providedBy(self.transport):
            self.transport.write(self.preface)

    def _begin(self) -> None:
        self._attempt.conclude(True, self._sentence)
        self._attempt.part()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._attempt.lost("it closed the connection")


class GetProbe(ConnectProbe):
    """Passes when one request is answered with an expected status; follows no redirect.

    :param request: the request's bytes.
    :param expected: the statuses that pass.
    """

    def __init__(self, attempt: ProbeAttempt, preface: bytes, request: bytes, expected: StatusRanges) -> None:
        super().__init__(attempt, preface, "")
        self._request = request
        self._expected = expected
        self._received = b""
        self._count = 0
        self._informational = 0
        self._reader: BodyReader | None = None

    def _begin(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._count += len(data)
        try:
            if self._reader is not None:
                self._take(self._reader, data)
            else:
                self._received += data
                self._read_head()
        except BadResponse as error:
            self._fail(error.detail.replace("the backend", "it"))
        except FramingError:
            self._fail("it sent bytes that are no HTTP response")
        else:
            if self._count > MAX_ANSWER_BYTES:
                self._fail("it sent a response head that is too large")

    def _fail(self, sentence: str) -> None:
        # Whatever is wrong behind a good head changes nothing of the verdict.
        self._attempt.conclude(False, sentence)
        self._attempt.cut()

    def _read_head(self) -> None:
        while True:
            end = head_end(self._received, 0)
            if end < 0:
                return
            block, self._received = self._received[:end], self._received[end:]
            head = parse_response_head(block, b"GET")
            if head.status >= 200 or head.status == 101:
                self._judge(head)
                return
            self._informational += 1
            if self._informational > _MAX_INFORMATIONAL:
                raise BadResponse("the backend sent too many interim responses")

    def _judge(self, head: ResponseHead) -> None:
        self._attempt.conclude(head.status in self._expected, f"answered {head.status}", head.status)
        self._reader = head.framing.reader()
        self._take(self._reader, self._received)

    def _take(self, reader: BodyReader, data: bytes) -> None:
        if data and not reader.done:
            reader.receive(data)
        if reader.done:
            self._attempt.part()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._attempt.lost("it closed the connection without an answer")
