"""What a backend was sent of a request body, kept while it may have to be sent to another."""

from __future__ import annotations

from scalingo_proxy.wire.grammar import Fields

__all__ = ["KEPT_BYTES", "KeptBody"]

#: A body that is longer than this is not kept, and its request not repeated.
KEPT_BYTES = 65536


class KeptBody:
    """The body of one request, as far as it has come.

    :param is_wanted: whether the request may be repeated at all.
    :ivar is_lost: whether some of it is gone.
    :ivar trailers: the trailers, if it is complete.
    """

    __slots__ = ("_payload", "is_lost", "trailers")

    def __init__(self, is_wanted: bool) -> None:
        self._payload = bytearray()
        self.is_lost = not is_wanted
        self.trailers: Fields = []

    def add(self, payload: bytes) -> None:
        """Keep a further piece, if all of it fits."""
        if self.is_lost:
            return
        if len(self._payload) + len(payload) > KEPT_BYTES:
            self.is_lost = True
            self._payload = bytearray()
        else:
            self._payload += payload

    @property
    def payload(self) -> bytes:
        """All of it so far."""
        return bytes(self._payload)
