"""May this request be sent again?  Only when it provably was not executed, or may be twice.

Pure rules (RFC 9110 §9.2.2); who is asked next is the pool's business, and how
often an app's requests may be repeated that of :mod:`.retry_budget`.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["IDEMPOTENT", "MAX_BACKENDS", "is_repeatable", "may_send_again"]

#: How many distinct backends one request may meet.
MAX_BACKENDS = 3

#: Methods whose repetition has the effect of one request (RFC 9110 §9.2.2).
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


def is_repeatable(method: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether sending it twice has the effect of sending it once.

    Of other methods the client says so by an ``Idempotency-Key``, by which
    the app knows the second for the first.
    """
    if method in IDEMPOTENT:
        return True
    return any(name.lower() == b"idempotency-key" and value.strip() for name, value in fields)


def may_send_again(written: bool, repeatable: bool, body_lost: bool, response_begun: bool) -> bool:
    """Whether a request whose backend failed may go to a connection again.

    :param written: some of it may have reached the backend.
    :param repeatable: see :func:`is_repeatable`.
    :param body_lost: some of its body is gone from our hands.
    :param response_begun: the backend sent at least one byte of an answer.
    """
    if body_lost or response_begun:
        return False
    return repeatable or not written
