"""What an operator may do to the certificates of a running proxy, as methods.

The admin API is a thin layer over this.  A certificate is reported done only
after it is committed to the store and served to the next handshake.  What was
told here can be exchanged and removed here; what comes from files cannot.
Knows no HTTP, and never gives a key back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping

import attrs
from twisted.internet.defer import Deferred, maybeDeferred

from scalingo_proxy.errors import CertificateMistake, ConfigurationError, Mistake, ScalingoProxyError
from scalingo_proxy.model import App, Certificate
from scalingo_proxy.protocols.tls_certificate_index import CertificateIndex, certificate_name
from scalingo_proxy.protocols.tls_certificates import load_certificate
from scalingo_proxy.resolvers.store import StoreResolver
from scalingo_proxy.resolvers.strict_tables import shown
from scalingo_proxy.services.control import NotReady

__all__ = [
    "CertificateControl",
    "CertificateInUse",
    "CertificatePage",
    "CertificateWritten",
    "ToldElsewhere",
    "UnknownCertificate",
]

# No colon: it parts the names of those that were not told here from their source.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class UnknownCertificate(ScalingoProxyError):
    """No certificate has this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"there is no certificate {name!r}")


class ToldElsewhere(ScalingoProxyError):
    """The certificate was not told here, so it cannot be taken back here."""

    def __init__(self, name: str, source: str) -> None:
        super().__init__(
            f"certificate {name!r} was not told to the admin API but comes from {source!r}: "
            + ("edit the configuration file and reload" if source == "file" else "it cannot be removed here")
        )


class CertificateInUse(ScalingoProxyError):
    """Apps ask for the certificate by its name.

    :ivar apps: the names of those apps, some of them when there are many.
    """

    def __init__(self, name: str, apps: tuple[str, ...]) -> None:
        self.apps = apps
        told = ", ".join(apps)
        super().__init__(f"certificate {name!r} is asked for by {told}: give them another one first")


@attrs.frozen
class CertificateWritten:
    """A certificate that was put, and whether there was none of its name before."""

    certificate: Certificate
    is_new: bool


@attrs.frozen
class CertificatePage:
    """A part of the certificates that were asked for, in the order of their names."""

    certificates: tuple[Certificate, ...]
    page: int
    per_page: int
    total: int


class CertificateControl:
    """The operations on certificates.

    :param index: all certificates, whoever told them.
    :param store: keeps those that are told here.
    :param apps: the apps that are in effect.
    :param wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        index: CertificateIndex,
        store: StoreResolver,
        apps: Callable[[], Mapping[str, App]],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._index = index
        self._store = store
        self._apps = apps
        self._wall_clock = wall_clock

    # -- reading ---------------------------------------------------------------

    def page(self, query: str = "", page: int = 1, per_page: int = 100) -> CertificatePage:
        """The certificates with *query* in their name or in one of their domains.

        :raises NotReady: the store is not loaded yet; so do the others.
        """
        self._require_loaded()
        wanted = query.strip().lower()
        found = sorted(
            (each for each in self._index if wanted in each.name.lower() or _names(each, wanted)),
            key=lambda each: each.name,
        )
        first = (page - 1) * per_page
        return CertificatePage(tuple(found[first : first + per_page]), page, per_page, len(found))

    def get(self, name: str) -> Certificate:
        """The certificate called *name*.

        :raises UnknownCertificate:
        """
        self._require_loaded()
        certificate = self._index.get(name)
        if certificate is None:
            raise UnknownCertificate(name)
        return certificate

    def source(self, certificate: Certificate) -> str:
        """Who told it: ``store``, ``file`` or ``demo``."""
        source, colon, _ = certificate.name.partition(":")
        return source if colon else self._store.name

    def days_left(self, certificate: Certificate) -> int:
        """Whole days until it expires; negative when it has."""
        return int((certificate.not_after - self._wall_clock()) // 86400)

    def served_for(self, app: App) -> list[Certificate]:
        """What is served for the domains of *app*, each once; nothing where TLS passes through."""
        if app.tls == "passthrough":
            return []
        found = {}
        for domain in app.domains:
            # A wildcard is asked for by a name that it covers.
            certificate = self._index.for_app(app, domain.replace("*", "any", 1))
            if certificate is not None:
                found[certificate.name] = certificate
        return list(found.values())

    def mistakes(self, app: App) -> Iterator[Mistake]:
        """What makes *app* one that cannot be told here: files that nobody has read."""
        if not isinstance(app.certificate, str) and self._index.get(certificate_name(app)) is None:
            yield Mistake(
                "certificate",
                "names files, which is for the configuration file; "
                "tell the certificate itself to /certificates/NAME, and give its name here",
            )

    def doubts(self, app: App) -> Iterator[str]:
        """What is odd about the certificate that *app* asks for, in sentences."""
        name = certificate_name(app)
        if not name or app.tls != "terminate":
            return
        certificate = self._index.get(name)
        if certificate is None:
            yield f"there is none called {shown(name)} yet; until then any that covers the domain is served"
            return
        for domain in app.domains:
            if not _covers(certificate, domain):
                yield f"{shown(name)} does not cover {domain}; any other that does is served"

    # -- changing --------------------------------------------------------------

    def put(self, name: str, chain: str, key: str) -> Deferred[CertificateWritten]:
        """Add a certificate, or exchange the one of that name; open connections stay.

        Fails with CertificateMistake (everything that is wrong with it),
        ConfigurationError (the name), NotReady or ResolverUnavailable; then
        nothing has changed.

        :param chain: PEM, the server's own certificate first.
        :param key: PEM, not encrypted.
        """

        def put() -> Deferred[CertificateWritten]:
            self._require_loaded()
            if not _NAME.fullmatch(name):
                sentence = (
                    "must be 1 to 128 letters, digits, '-', '_' and '.', beginning with a letter or digit"
                )
                raise ConfigurationError([Mistake("name", f"{sentence}, not {shown(name)}")])
            certificate = load_certificate(name, _bytes(chain), _bytes(key), self._wall_clock())
            self._require_use(certificate)
            written = CertificateWritten(certificate, self._index.get(name) is None)
            return self._store.certificates.set(certificate).addCallback(lambda _: written)

        return maybeDeferred(put)

    def delete(self, name: str) -> Deferred[None]:
        """Forget the certificate called *name*.

        Fails with UnknownCertificate, ToldElsewhere, or CertificateInUse while
        an app asks for it by its name.
        """

        def delete() -> Deferred[None]:
            certificate = self.get(name)
            if name not in self._store.certificates.certificates():
                raise ToldElsewhere(name, self.source(certificate))
            users = tuple(app.name for app in self._apps().values() if app.certificate == name)
            if users:
                raise CertificateInUse(name, users[:5])
            return self._store.certificates.remove(name)

        return maybeDeferred(delete)

    def _require_use(self, certificate: Certificate) -> None:
        """An app that asks for it by its name must not lose its HTTPS.

        :raises CertificateMistake: it covers no domain of such an app.
        """
        for app in self._apps().values():
            is_asked_for = app.certificate == certificate.name and app.domains
            if is_asked_for and not any(_covers(certificate, domain) for domain in app.domains):
                names = ", ".join(certificate.domains[:5])
                sentence = f"covers no domain of app {app.name!r}, which asks for it (it covers {names})"
                raise CertificateMistake([Mistake("certificate", sentence)])

    def _require_loaded(self) -> None:
        if not self._store.is_loaded:
            raise NotReady("the store is still being loaded")


def _names(certificate: Certificate, wanted: str) -> bool:
    return any(wanted in domain for domain in certificate.domains)


def _covers(certificate: Certificate, domain: str) -> bool:
    """Whether it is good for a domain as an app has it, which may be a wildcard."""
    return domain in certificate.domains or certificate.covers(domain)


def _bytes(pem: str) -> bytes:
    # Whatever is not ASCII is no PEM, but may stand in a remark around it.
    return pem.encode("utf-8", "replace")
