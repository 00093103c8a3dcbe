"""Large bodies of known length: from socket to socket, without entering this process.

As tunnels do (:mod:`scalingo_proxy.transports.splice`), where both ends are plain
TCP: a gigabyte costs a sixth of what it costs otherwise.  Counts, deadlines and
back-pressure stay what they are.  The last bytes take the ordinary way, so that
a body ends where all bodies end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scalingo_proxy.transports.splice import Splice, begin_splice
from scalingo_proxy.wire.http1_body import BodyReader, LengthReader

if TYPE_CHECKING:
    from scalingo_proxy.protocols.exchange import Exchange

__all__ = ["PASS_FROM", "pass_response", "pass_upload"]

#: Less than this is hardly worth the beginning and the end of it.
PASS_FROM = 262144

#: What is left to the ordinary way.
_LAST_BYTES = 4096


def pass_response(exchange: Exchange, reader: BodyReader, backend: Any) -> Splice | None:
    """Let the rest of a response pass; ``None`` where it has to come in.

    :param reader: knows how much is left.
    :param backend: the transport that it comes from.
    """
    client = exchange.client_transport
    if client is None or not isinstance(reader, LengthReader) or reader.remaining < PASS_FROM:
        return None

    def moved(count: int) -> None:
        reader.remaining -= count
        exchange.response_moved(count)

    return begin_splice(
        backend,
        client,
        exchange.pipes,
        moved,
        lambda: reader.remaining - _LAST_BYTES,
        exchange.response_held,
    )


def pass_upload(
    exchange: Exchange,
    reader: BodyReader,
    client: Any,
    moved: Callable[[int], None],
    held: Callable[[bool], None],
) -> Splice | None:
    """The same for the rest of a request.

    :param client: the transport that it comes from.
    :param moved: told how many bytes came, before the exchange is.
    :param held: told when the backend takes no more for now, and when it does again.
    """
    backend = exchange.backend_transport
    if backend is None or not isinstance(reader, LengthReader) or reader.remaining < PASS_FROM:
        return None

    def count_and_tell(count: int) -> None:
        reader.remaining -= count
        moved(count)
        exchange.request_moved(count)

    return begin_splice(
        client, backend, exchange.pipes, count_and_tell, lambda: reader.remaining - _LAST_BYTES, held
    )
