"""Taking one backend out of an app, and waiting until it is safe to kill."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from scalingo_proxy.errors import ScalingoProxyError
from scalingo_proxy.services.control import BackendsChange, Control

__all__ = ["UnknownBackend", "drain_backend"]


class UnknownBackend(ScalingoProxyError):
    """The app has no backend at this address."""

    def __init__(self, app: str, address: str) -> None:
        self.app = app
        self.address = address
        super().__init__(f"app {app!r} has no backend {address!r}")


def drain_backend(control: Control, name: str, address: str) -> Deferred[BackendsChange]:
    """Take the backend at *address* out of the app, as one change; it finishes what it has.

    Where it is drained already, that drain is what the result is about, so
    that asking again after a lost answer waits for the same backend.  Fails
    with UnknownApp, or with UnknownBackend when it neither serves nor drains.
    """

    def without(records: list[Any]) -> list[Any]:
        left = [record for record in records if _address(record) != address]
        if len(left) == len(records) and not any(
            status.address == address and status.membership == "draining" for status in control.backends(name)
        ):
            raise UnknownBackend(name, address)
        return left

    return control.set_backends(name, without)


def _address(record: Any) -> str:
    """Where a backend of an app record is."""
    return str(record["address"] if isinstance(record, dict) else record)
