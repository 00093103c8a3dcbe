"""The last requests, kept so that each can be explained when somebody asks.

An observer that does next to nothing: a finished record goes into a ring, and
all reading is done by :mod:`scalingo_proxy.services.explanation` later.
Requests that are still under way are looked for where they are.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from zope.interface import implementer

from scalingo_proxy.errors import ScalingoProxyError
from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.services.batches import nothing_to_tell
from scalingo_proxy.services.explanation import explained

__all__ = ["Explain", "UnknownRequest"]

#: Texts that a client chose are kept up to this: what is longer is cut, so that
#: nobody fills the memory with long paths.
_MAX_TEXT = 1024


class UnknownRequest(ScalingoProxyError):
    """No request of this id is under way, or among the last."""

    def __init__(self, request_id: str, size: int) -> None:
        self.request_id = request_id
        if size:
            where = f"it is not under way, and not among the last {size} requests ([explain] requests)"
        else:
            where = "no requests are kept, because [explain] requests is 0"
        super().__init__(f"nothing is known of request {request_id!r}: {where}")


class _UnderWay(Protocol):
    record: Record
    phase: Any

    @property
    def carried(self) -> tuple[int, int]: ...


@implementer(IObserver)
class Explain:
    """Keeps the records of the last requests.

    :param size: how many; 0 keeps none.
    :param under_way: the exchanges and tunnels that are not over.
    :param query: whether the query of a path is told.
    :param clock: the monotonic clock that the records are told the time by.
    """

    #: See :class:`~scalingo_proxy.services.broadcast.Broadcast`.
    is_for_exchanges_alone = True

    def __init__(
        self,
        size: int,
        under_way: Callable[[], Iterable[_UnderWay]],
        clock: Callable[[], float],
        query: bool = True,
    ) -> None:
        self._ring: deque[Record] = deque(maxlen=size)
        self._under_way = under_way
        self._clock = clock
        self._query = query
        #: Makes sure that nothing waits to be told; called before anything is looked for.
        self.catch_up: Callable[[], object] = nothing_to_tell

    def exchange_finished(self, record: Record) -> None:
        texts = len(record.path) + len(record.host) + len(record.method)
        if texts + len(record.user_agent) + len(record.referer) > _MAX_TEXT:
            record = _shortened(record)
        self._ring.append(record)

    def exchanges_finished(self, records: Sequence[Record]) -> None:
        """Keep several."""
        if _are_short(records):
            self._ring.extend(records)
        else:
            for record in records:
                self.exchange_finished(record)

    def connection_opened(self, listener: str, kind: str) -> None:
        """Nothing: it is exchanges that are explained."""

    def connection_closed(self, listener: str, kind: str) -> None:
        """Nothing: it is exchanges that are explained."""

    def reconfigure(self, size: int, query: bool) -> None:
        """Keep so many from now on, the latest of those that are there among them."""
        self._query = query
        if size != self._ring.maxlen:
            self._ring = deque(self._ring, maxlen=size)

    def explain(self, request_id: str) -> list[dict[str, Any]]:
        """What became of the requests of this id, the latest first.

        Clients may choose the ids of their requests, and may choose one twice.

        :raises UnknownRequest: there is none of this id.
        """
        self.catch_up()
        now, query = self._clock(), self._query
        found = [
            explained(_with_tunnel(each), each.phase.value, now, query)
            for each in self._under_way()
            if each.record.request_id == request_id
        ]
        found += [
            explained(record, "finished", now, query)
            for record in reversed(self._ring)
            if record.request_id == request_id
        ]
        if not found:
            raise UnknownRequest(request_id, self._ring.maxlen or 0)
        return found


def _with_tunnel(under_way: _UnderWay) -> Record:
    """The record, with what a tunnel has carried so far."""
    from_client, from_backend = under_way.carried
    if not (from_client or from_backend):
        return under_way.record
    record = copy.copy(under_way.record)
    record.bytes_in += from_client
    record.sent_bytes += from_client
    record.bytes_out += from_backend
    return record


def _are_short(records: Sequence[Record]) -> bool:
    """Whether it is certain at a glance that no record has longer texts than are kept."""
    for record in records:
        if (
            len(record.path) + len(record.host) + len(record.method) > _MAX_TEXT
            or record.user_agent
            or record.referer
        ):
            return False
    return True


def _shortened(record: Record) -> Record:
    """A copy without long texts; the record itself is everybody's."""
    short = copy.copy(record)
    short.path, short.host, short.method = (
        text if len(text) <= _MAX_TEXT // 4 else text[: _MAX_TEXT // 4] + "…"
        for text in (record.path, record.host, record.method)
    )
    short.user_agent = short.referer = ""
    return short
