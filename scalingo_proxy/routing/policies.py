"""What is asked before a client is served: is it let in, and does it ask too often?

One object for a proxy, shared by all its doors.  It holds the rules for
everybody, and compiles an app's own the first time somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scalingo_proxy.errors import Denied, RateLimited
from scalingo_proxy.model import App
from scalingo_proxy.routing.access import AccessRules
from scalingo_proxy.routing.rate_limits import Buckets, rate_key

__all__ = ["Policies"]


class _AppPolicy:
    """The compiled rules of one app."""

    __slots__ = ("access", "app", "clients", "total")

    def __init__(self, app: App, before: _AppPolicy | None) -> None:
        self.app = app
        self.clients: Buckets | None
        self.total: Buckets | None
        self.access = AccessRules(app.access.get("deny", ()), app.access.get("allow", ()))
        if before is not None and before.app.rate_limit == app.rate_limit:
            # A deploy must not give everybody a full bucket.
            self.clients, self.total = before.clients, before.total
        else:
            self.clients = _buckets(app.rate_limit)
            self.total = _buckets(app.rate_limit.get("total", {}))


class Policies:
    """Who is let in, to all apps and to each, and how often each client may ask.

    :ivar access: the rules for everybody; replaced as a whole.
    :ivar denied: how many were refused, by list: ``deny`` and ``allow`` of the
        proxy, ``app_deny`` and ``app_allow`` of apps.
    """

    __slots__ = ("_apps", "access", "denied")

    def __init__(self, access: AccessRules | None = None) -> None:
        self.access = access or AccessRules()
        self.denied = dict.fromkeys(("deny", "allow", "app_deny", "app_allow"), 0)
        self._apps: dict[str, _AppPolicy] = {}

    def admit(self, client: str) -> None:
        """Let *client* in, or not.

        :raises Denied:
        """
        refusal = self.access.refusal(client)
        if refusal:
            self.denied[refusal] += 1
            raise Denied()

    def admit_to(self, app: App, client: str, now: float) -> None:
        """Let *client* have one request of *app*, or not; asked only for apps with rules of their own.

        :raises Denied:
        :raises RateLimited: with the seconds after which to ask again.
        """
        policy = self._apps.get(app.name)
        if policy is None or policy.app is not app:
            policy = self._apps[app.name] = _AppPolicy(app, policy)
        refusal = policy.access.refusal(client)
        if refusal:
            self.denied[f"app_{refusal}"] += 1
            raise Denied()
        if policy.clients is not None:
            _take(policy.clients, rate_key(client), now)
        if policy.total is not None:
            _take(policy.total, "", now)

    def forget(self, names: Iterable[str]) -> None:
        """Keep nothing of apps that are gone."""
        for name in names:
            self._apps.pop(name, None)


def _buckets(limit: Mapping[str, Any]) -> Buckets | None:
    if "requests" not in limit:
        return None
    requests = limit["requests"]
    return Buckets(requests, limit.get("per", 1.0), limit.get("burst", requests))


def _take(buckets: Buckets, key: str, now: float) -> None:
    wait = buckets.take(key, now)
    if wait:
        raise RateLimited(retry_after=wait)
