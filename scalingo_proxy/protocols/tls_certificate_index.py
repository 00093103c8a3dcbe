"""Which certificate is served for which name.

Answers a handshake with dictionary look-ups, however many certificates there
are.  Knows nothing of X.509 and of OpenSSL, nor where certificates come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from scalingo_proxy.model import App, Certificate, CertificateChange

__all__ = ["CertificateIndex", "certificate_name"]


def certificate_name(app: App) -> str:
    """The name of the certificate that *app* asks for, or ``""``.

    A pair of files is called after the file of its certificate; other names
    have no colon in them.
    """
    wanted = app.certificate
    return wanted if isinstance(wanted, str) else f"file:{wanted['cert']}"


class CertificateIndex:
    """Certificates by their names and by the domains they cover.

    :param wall_clock: seconds since the epoch.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._by_name: dict[str, Certificate] = {}
        #: All that cover a domain, wildcards under ``*.``, the best one first.
        self._by_domain: dict[str, tuple[Certificate, ...]] = {}
        self._watchers: list[Callable[[CertificateChange], None]] = []

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Certificate]:
        return iter(tuple(self._by_name.values()))

    def get(self, name: str) -> Certificate | None:
        """The certificate of that name."""
        return self._by_name.get(name)

    # -- looking up --------------------------------------------------------------

    def covering(self, host: str) -> Certificate | None:
        """The best certificate for *host*, one with the very name before a wildcard.

        Several for one name: a valid one before others, then the one that
        lasts longest.

        :param host: lower case, as it stands in a hello or a ``Host``.
        """
        found = self._by_domain.get(host)
        if found is None:
            found = self._by_domain.get(f"*.{host.partition('.')[2]}")
        return found[0] if found and "*" not in host else None

    def for_app(self, app: App, server_name: str) -> Certificate | None:
        """What *app* serves to a client that asks for *server_name*.

        The one that the app asks for, if it covers the name; else any that
        does.  Never one that does not, except for a client that named nobody.

        :param server_name: ``""`` when the client told none.
        """
        wanted = certificate_name(app)
        if wanted:
            own = self._by_name.get(wanted)
            if own is not None and (not server_name or own.covers(server_name)):
                return own
        if server_name:
            return self.covering(server_name)
        domains = (app.canonical, *app.domains) if app.canonical else app.domains
        return next(filter(None, map(self._covering_domain, domains)), None)

    def _covering_domain(self, domain: str) -> Certificate | None:
        """As :meth:`covering`, for a domain as an app has it, which may be a wildcard."""
        if domain.startswith("*."):
            found = self._by_domain.get(domain)
            return found[0] if found else None
        return self.covering(domain)

    # -- changing ----------------------------------------------------------------

    def set(self, certificate: Certificate) -> None:
        """Add *certificate*, or exchange the one of its name."""
        self.apply(CertificateChange((certificate,)))

    def remove(self, name: str) -> None:
        """Forget the certificate of that name, if there is one."""
        self.apply(CertificateChange((), (name,)))

    def apply(self, change: CertificateChange) -> None:
        """Take over *change*; look-ups see it from the next one on.

        What it does not really change is left alone, as at a reload of files
        that are what they were.
        """
        held = self._by_name
        updated = tuple(each for each in change.updated if held.get(each.name) != each)
        removed = tuple(name for name in change.removed if name in held)
        for name in removed:
            self._leave(held.pop(name))
        for certificate in updated:
            self._leave(held.get(certificate.name))
            held[certificate.name] = certificate
            self._enter(certificate)
        difference = CertificateChange(updated, removed)
        if difference:
            for watcher in tuple(self._watchers):
                watcher(difference)

    def follow(self, feed: Any) -> None:
        """Take over what *feed*, an ICertificateFeed, has and what becomes of it."""
        feed.watch(self.apply)
        self.apply(CertificateChange(tuple(feed.certificates().values())))

    def watch(self, callback: Callable[[CertificateChange], None]) -> None:
        """Call *callback* after each change, with what differs."""
        self._watchers.append(callback)

    def _enter(self, certificate: Certificate) -> None:
        now = self._wall_clock()
        for domain in certificate.domains:
            others = self._by_domain.get(domain, ())
            ranked = sorted((*others, certificate), key=lambda each: _rank(each, now), reverse=True)
            self._by_domain[domain] = tuple(ranked)

    def _leave(self, certificate: Certificate | None) -> None:
        if certificate is None:
            return
        for domain in certificate.domains:
            others = tuple(each for each in self._by_domain.pop(domain, ()) if each is not certificate)
            if others:
                self._by_domain[domain] = others


def _rank(certificate: Certificate, now: float) -> tuple[bool, float, str]:
    is_valid = certificate.not_before <= now < certificate.not_after
    return is_valid, certificate.not_after, certificate.name
