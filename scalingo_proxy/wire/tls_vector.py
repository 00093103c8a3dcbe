"""Vectors of TLS: bytes with their length in front (RFC 8446 §3.4)."""

from __future__ import annotations

from scalingo_proxy.wire.tls_alert import Alert, HelloRefused

__all__ = ["take", "take_whole"]


def take(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """The vector at *at* whose length stands in *width* bytes, and where it ends."""
    start = at + width
    end = start + int.from_bytes(data[at:start], "big")
    if end > len(data):
        raise HelloRefused(Alert.DECODE_ERROR, "a length in the hello reaches beyond its end")
    return data[start:end], end


def take_whole(data: bytes, width: int) -> bytes:
    """The one vector that *data* consists of, which may not be empty."""
    vector, end = take(data, 0, width)
    if end != len(data) or not vector:
        raise HelloRefused(Alert.DECODE_ERROR, "a list in an extension has the wrong length")
    return vector
