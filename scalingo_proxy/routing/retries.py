"""May this request be sent again?  Only when it provably was not executed.

Pure rules (RFC 9110 §9.2.2); who is asked next is the pool's business.
"""

from __future__ import annotations

__all__ = ["IDEMPOTENT", "MAX_BACKENDS", "is_idempotent", "may_send_again"]

#: How many distinct backends one request may meet.
MAX_BACKENDS = 3

#: Methods whose repetition has the effect of one request (RFC 9110 §9.2.2).
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


def is_idempotent(method: bytes) -> bool:
    """Whether sending it twice has the effect of sending it once."""
    return method in IDEMPOTENT


def may_send_again(method: bytes, written: bool, body_taken: bool, response_begun: bool) -> bool:
    """Whether a request whose backend failed may go to a connection again.

    :param written: some of it may have reached the backend.
    :param body_taken: some of its body is gone from our hands: it cannot be repeated.
    :param response_begun: the backend sent at least one byte of an answer.
    """
    if not written:
        return True
    return not response_begun and not body_taken and is_idempotent(method)
