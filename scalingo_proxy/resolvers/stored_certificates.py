"""The certificates of the embedded store: what the admin API was told of them.

Waits for the disk before anything is served, as the store does with apps.
Knows nothing of what is in a certificate: reading one is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from twisted.internet.defer import Deferred

from scalingo_proxy.model import Certificate, CertificateChange
from scalingo_proxy.resolvers.certificate_feed import CertificateFeed

__all__ = ["CertificateReader", "StoredCertificates"]

#: Makes a certificate of its name, chain and key; ValueError for damaged ones.
CertificateReader: TypeAlias = Callable[[str, bytes, bytes], Certificate]


class StoredCertificates(CertificateFeed):
    """Certificates that survive a restart.

    :param commit: asks for a change, brings it to the disk and then here; see
        :meth:`~scalingo_proxy.resolvers.store.StoreResolver.apply`.
    """

    def __init__(self, commit: Callable[[Callable[[], CertificateChange]], Deferred[None]]) -> None:
        super().__init__()
        self._commit = commit

    def set(self, certificate: Certificate) -> Deferred[None]:
        """Add *certificate*, or exchange the one of its name; fires when it is on the disk and served.

        :raises ResolverUnavailable: the store is not open, or the disk fails.
            The Deferred fails with it; nothing is changed then.
        """
        return self._commit(lambda: CertificateChange((certificate,)))

    def remove(self, name: str) -> Deferred[None]:
        """Forget the certificate called *name*; as :meth:`set`.

        :raises KeyError: (the Deferred fails with it) when there is none.
        """

        def removal() -> CertificateChange:
            if name not in self._certificates:
                raise KeyError(name)
            return CertificateChange((), (name,))

        return self._commit(removal)
