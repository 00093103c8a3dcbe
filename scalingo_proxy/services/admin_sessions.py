"""Who sits in front of the status page: sessions of browsers, and proofs against forged forms.

A browser cannot send the token by itself, so a person gives it once and gets
a cookie.  The cookie is no secret of lasting worth: it names a session that
lives in memory, ends by itself, and ends for everybody when the token is
exchanged.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["COOKIE", "MAX_SESSIONS", "SESSION_SECONDS", "Sessions"]

#: The name of the cookie.
COOKIE = "scalingo-proxy-session"
#: A session ends when it was not used for so long.
SESSION_SECONDS = 12 * 3600.0
#: Beyond so many, the one that was not used for longest ends.
MAX_SESSIONS = 1000


class Sessions:
    """The sessions of one admin address.

    :param token: tells the token required; ``""`` when there is none, and
        then everybody is let in.
    :param clock: seconds, monotonic.
    """

    def __init__(self, token: Callable[[], str], clock: Callable[[], float]) -> None:
        self._token = token
        self._clock = clock
        # When each was last used, and for which token it was opened.
        self._used: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._secret = secrets.token_bytes(32)

    def sign_in(self, given: str) -> str | None:
        """The value of the cookie of a new session, or ``None`` for a wrong token."""
        token = self._token()
        right = hmac.compare_digest(given.strip().encode("utf-8"), token.encode("utf-8"))
        if not (token and right):
            return None
        session = secrets.token_urlsafe(32)
        self._used[session] = (self._clock(), token)
        if len(self._used) > MAX_SESSIONS:
            self._used.popitem(last=False)
        return session

    def sign_out(self, session: str) -> None:
        """End a session."""
        self._used.pop(session, None)

    def admits(self, session: str) -> bool:
        """Whether the session is open, which this prolongs."""
        token = self._token()
        used_at, opened_for = self._used.get(session, (0.0, ""))
        now = self._clock()
        if not opened_for or opened_for != token or now - used_at > SESSION_SECONDS:
            self._used.pop(session, None)
            return False
        self._used[session] = (now, token)
        self._used.move_to_end(session)
        return True

    def proof(self, session: str) -> str:
        """What a form of this session has to carry: nobody can know it who cannot read the page."""
        return hmac.digest(self._secret, session.encode("utf-8"), "sha256").hex()

    def is_proof(self, session: str, given: str) -> bool:
        """Whether *given* is the proof of this session."""
        return hmac.compare_digest(self.proof(session).encode("ascii"), given.encode("utf-8"))
