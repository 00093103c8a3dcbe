"""The client's side of an exchange, as the exchange sees it.

HTTP/1 connections provide it, and so can each stream of a connection that
carries several.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, Protocol

from scalingo_proxy.errors import ProxyError
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.relay import RelayEnd
from scalingo_proxy.routing.members import Member
from scalingo_proxy.wire.grammar import Fields
from scalingo_proxy.wire.http1_head import ResponseHead

__all__ = ["Downstream", "Frontend", "Phase", "UnderWay"]


class Phase(enum.Enum):
    """What an exchange waits for."""

    RESOLVING = "resolving"
    QUEUED = "queued"
    CONNECTING = "connecting"
    SENDING = "sending"
    WAITING = "waiting"
    RESPONDING = "responding"
    TUNNEL = "tunnel"
    OVER = "over"


class Frontend(Protocol):
    """What a factory asks of each connection of a client."""

    transport: Any
    #: Whether it has asked for anything yet.
    has_asked: bool

    def idle_since(self) -> float | None:
        """The moment from which on it has done nothing; ``None`` while something is under way."""

    def crawls(self, now: float) -> bool:
        """Whether it moves so slowly that it hardly can be meant well."""

    def give_up(self) -> None:
        """Close, to make room for others."""

    def drain(self) -> None:
        """Close now if nothing is under way, else as soon as nothing is."""

    def cut(self) -> None:
        """End everything that is under way, and close."""

    def under_way(self) -> Iterable[UnderWay]:
        """What goes on for this client now."""


class UnderWay(Protocol):
    """An exchange or a tunnel that is not over."""

    record: Record
    phase: Phase

    @property
    def carried(self) -> tuple[int, int]:
        """What its tunnel, if it is one, has carried so far in either direction, from the client first."""

    @property
    def member(self) -> Member | None:
        """Whom it has a place at now."""

    @property
    def moved_at(self) -> float:
        """When something of its tunnel, if it is one, moved last."""

    def fail(self, error: ProxyError) -> None:
        """End with an error of ours; the backend is not to blame."""

    def drain_deadline_reached(self) -> None:
        """Its backend left the app and is waited for no longer, or the proxy stops."""


class Downstream(Protocol):
    """What an exchange asks of the client's side.

    It is a :class:`~scalingo_proxy.protocols.deadlines.Timed`, too: the exchange's waits
    are counted on it.
    """

    @property
    def ends(self) -> tuple[Any, Any]:
        """The client's address and the one it connected to, in whatever form the transport tells them."""

    @property
    def raw_transport(self) -> Any:
        """Where payload of the response may be written as it is, by others, too; else ``None``."""

    def writing_held(self, is_held: bool) -> None:
        """What others write to that transport is not taken by the client for now, or is again."""

    def send_informational(self, head: ResponseHead) -> None:
        """Relay a 1xx response other than 101."""

    def start_response(self, head: ResponseHead, payload: bytes) -> None:
        """Begin the response; more payload follows."""

    def send_payload(self, payload: bytes) -> None:
        """Relay a piece of the response body."""

    def send_whole(self, head: ResponseHead, payload: bytes, trailers: Fields) -> None:
        """Relay a response that is complete already."""

    def end_response(self, payload: bytes, trailers: Fields) -> None:
        """Relay the last piece."""

    def send_error(self, error: ProxyError) -> None:
        """Answer with an error of ours; nothing was sent before."""

    def break_response(self) -> None:
        """Cut the response that has begun, so that it cannot be taken for complete."""

    def open_upload(self) -> None:
        """Begin or go on handing over the request body."""

    def close_upload(self) -> None:
        """The backend takes no more of the request body for now: take no more from the client."""

    def hold_upload(self) -> None:
        """Keep what comes of the request body, until the upload is opened for another backend."""

    def switch(self, head: ResponseHead) -> Any:
        """Send the 101 and give the transport that is the client's end of the tunnel."""

    def join(self, end: RelayEnd) -> None:
        """Hand everything to *end* from now on, what was read ahead of the switch first."""

    def exchange_over(self) -> None:
        """The exchange has ended and was accounted for."""
