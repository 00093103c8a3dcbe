"""What every source of certificates has in common.

Where they come from, and whether they may be served, is the source's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from twisted.logger import Logger
from zope.interface import implementer

from scalingo_proxy.interfaces import ICertificateFeed
from scalingo_proxy.model import Certificate, CertificateChange
from scalingo_proxy.resolvers.subscriptions import Subscriptions

__all__ = ["CertificateFeed"]

_log = Logger()


@implementer(ICertificateFeed)
class CertificateFeed:
    """Certificates by name, and those who are told of changes."""

    def __init__(self) -> None:
        self._certificates: dict[str, Certificate] = {}
        self._watchers = Subscriptions[Callable[[CertificateChange], object]]()

    def certificates(self) -> Mapping[str, Certificate]:
        """The certificates as they stand, by name; a view that changes with them."""
        return MappingProxyType(self._certificates)

    def watch(self, callback: Callable[[CertificateChange], object]) -> Callable[[], None]:
        """Call *callback* after each change, until the returned function is called."""
        return self._watchers.add(callback)

    def take_over(self, change: CertificateChange) -> None:
        """Make *change*, and tell of what differs."""
        held = self._certificates
        updated = tuple(each for each in change.updated if held.get(each.name) != each)
        removed = tuple(name for name in change.removed if held.pop(name, None) is not None)
        held.update((each.name, each) for each in updated)
        difference = CertificateChange(updated, removed)
        if not difference:
            return
        for callback in self._watchers:
            try:
                callback(difference)
            except Exception:
                # It is in effect already: others must hear of it.
                _log.failure("a watcher of certificates failed")
