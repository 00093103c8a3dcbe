"""Certificates that are ready to be served."""

from __future__ import annotations

import attrs

__all__ = ["Certificate", "CertificateChange"]


@attrs.frozen
class Certificate:
    """A certificate with its key, ready to be served.

    Nothing but the name, the domains, the dates and the fingerprint is ever
    told to anybody.

    :ivar name: unique; what apps, the admin API and the metrics call it.
    :ivar chain: PEM, the server's own certificate first.
    :ivar key: PEM, not encrypted.
    :ivar domains: the names it covers, as an app's domains are written.
    :ivar not_before: seconds since the epoch.
    :ivar not_after: seconds since the epoch.
    :ivar fingerprint: SHA-256 of the server's own certificate, as ``AB:CD:…``.
    """

    name: str
    chain: bytes = attrs.field(repr=False)
    key: bytes = attrs.field(repr=False)
    domains: tuple[str, ...]
    not_before: float
    not_after: float
    fingerprint: str

    def covers(self, host: str) -> bool:
        """Whether *host*, lower case and without port, is one of its names (RFC 9525 §6.3)."""
        if host in self.domains:
            return "*" not in host
        first, dot, rest = host.partition(".")
        return bool(first and dot) and f"*.{rest}" in self.domains


@attrs.frozen
class CertificateChange:
    """What became different among certificates.

    :ivar updated: those that are new or exchanged.
    :ivar removed: names of those that are gone.
    """

    updated: tuple[Certificate, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.updated or self.removed)
