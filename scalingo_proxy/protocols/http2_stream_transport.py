"""One HTTP/2 stream as the transport of a tunnel (RFC 8441, RFC 9113 §8.5).

What a TCP connection does with FIN and RST, a stream does with END_STREAM and
RST_STREAM; reading is paused by not opening its window.  Knows nothing of what
the tunnel carries.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalingo_proxy.protocols.http2_stream import HTTP2Stream

__all__ = ["HTTP2StreamTransport"]


class HTTP2StreamTransport:
    """What a :class:`~scalingo_proxy.protocols.relay.Relay` asks of a transport.

    The stream pauses and resumes the other side of the relay by itself, so no
    producer needs to be registered here.

    :param stream: what carries the bytes.
    :param transport: of the whole connection, for the addresses.
    """

    __slots__ = ("_stream", "_transport")

    def __init__(self, stream: HTTP2Stream, transport: Any) -> None:
        self._stream = stream
        self._transport = transport

    def write(self, data: bytes) -> None:
        """Send *data* when the windows and the other streams allow."""
        self._stream.send_payload(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send all of *data*."""
        self._stream.send_payload(b"".join(data))

    def loseWriteConnection(self) -> None:
        """END_STREAM behind what was written; reading goes on."""
        self._stream.end_output(closing=False)

    def loseConnection(self) -> None:
        """END_STREAM behind what was written, and what still comes is refused."""
        self._stream.end_output(closing=True)

    def abortConnection(self) -> None:
        """RST_STREAM with CANCEL, at once."""
        self._stream.abort()

    def pauseProducing(self) -> None:
        """Read no more than one window."""
        self._stream.close_upload()

    def resumeProducing(self) -> None:
        """Read again."""
        self._stream.open_upload()

    def unregisterProducer(self) -> None:
        """Nothing: see the class."""

    def getPeer(self) -> Any:
        """The client's address."""
        return self._transport.getPeer()

    def getHost(self) -> Any:
        """The address that the client connected to."""
        return self._transport.getHost()
