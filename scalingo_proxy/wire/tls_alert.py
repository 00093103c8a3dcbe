"""TLS alerts: their numbers, one as bytes, and the error that leads to one.

Nothing is encrypted here: these are alerts from before any key, which is when
a hello is refused (RFC 8446 §6, RFC 6066 §9, RFC 7301 §3.2).
"""

from __future__ import annotations

import enum

from scalingo_proxy.errors import ScalingoProxyError

__all__ = ["Alert", "HelloRefused", "alert_record"]


class Alert(enum.IntEnum):
    """Why a handshake ends, by the numbers of the TLS registry."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    ILLEGAL_PARAMETER = 47
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    PROTOCOL_VERSION = 70
    INTERNAL_ERROR = 80
    USER_CANCELED = 90
    MISSING_EXTENSION = 109
    UNRECOGNIZED_NAME = 112
    NO_APPLICATION_PROTOCOL = 120

    @property
    def text(self) -> str:
        """The name as the RFCs write it."""
        return self.name.lower()


_ALERT_RECORD = 21
_WARNING, _FATAL = 1, 2
_SSL_3_0, _TLS_1_2 = 0x0300, 0x0303


def alert_record(alert: Alert, version: int = _TLS_1_2) -> bytes:
    """A whole record with *alert*, to be sent before the connection is closed.

    Fatal, except that CLOSE_NOTIFY and USER_CANCELED never are (RFC 8446 §6.1).

    :param version: what the client's hello said, ``0x0303`` when it is not
        known.  The record says the same, because old clients look at it, but
        never more than TLS 1.2, as RFC 8446 §5.1 wants it.
    """
    level = _WARNING if alert in (Alert.CLOSE_NOTIFY, Alert.USER_CANCELED) else _FATAL
    version = min(max(version, _SSL_3_0), _TLS_1_2)
    return b"%c%b\x00\x02%c%c" % (_ALERT_RECORD, version.to_bytes(2, "big"), level, alert)


class HelloRefused(ScalingoProxyError):
    """What came is no hello that anybody here may answer; the text says why.

    :ivar alert: what the client is told, or ``None`` where it would not
        understand: then the connection is closed without a word.
    :ivar version: what the client's hello said, as far as it was read.
    """

    def __init__(self, alert: Alert | None, detail: str) -> None:
        super().__init__(detail)
        self.alert = alert
        self.version = _TLS_1_2

    @property
    def answer(self) -> bytes:
        """The bytes to send before closing, possibly none."""
        return b"" if self.alert is None else alert_record(self.alert, self.version)
