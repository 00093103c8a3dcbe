"""Everything the program can be told, as frozen values with their defaults.

:mod:`scalingo_proxy.config` makes these from a file and the environment;
the options of the command line are merged here, because they can clash with
what the file said.  Paths are text, as they are opened; times are seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from scalingo_proxy.errors import ConfigurationError, Mistake
from scalingo_proxy.model import App, Certificate, Health, Limits, Quarantine, Timeouts
from scalingo_proxy.resolvers.app_record import app_from_record
from scalingo_proxy.resolvers.strict_tables import shown
from scalingo_proxy.routing.topology_guard import GuardRule
from scalingo_proxy.services.endpoint_strings import ListenEndpoint, parse_endpoint
from scalingo_proxy.services.reserved_settings import reserved_settings

__all__ = [
    "AccessSettings",
    "AdminSettings",
    "ExplainSettings",
    "ListenSettings",
    "LogSettings",
    "MetricsSettings",
    "ProxySettings",
    "Settings",
    "TopologySettings",
    "app_clashes",
    "endpoint_clashes",
    "parse_app_option",
]

DEFAULT_HTTP = "8080"
DEMO_TLS = "8443"
DEFAULT_ADMIN = "127.0.0.1:8081"


@attrs.frozen
class ProxySettings:
    """Who this proxy is (``[proxy]``).

    :ivar state: the file of the embedded store; ``""`` keeps it in memory.
    """

    name: str = "router-1"
    region: str = "local"
    state: str = "scalingo-proxy.db"


@attrs.frozen
class ListenSettings:
    """One door (``[[listen]]``).

    :ivar trusted_proxies: networks in their usual form.
    :ivar public_port: for ``X-Forwarded-Port``; 0 is the listener's own.
    :ivar option: the option of the command line that asked for it, or ``""``.
    """

    endpoint: ListenEndpoint
    protocol: str = "http"
    proxy_protocol: bool = False
    trusted_proxies: tuple[str, ...] = ()
    public_port: int = 0
    default_app: str = ""
    option: str = attrs.field(default="", eq=False)


@attrs.frozen
class AccessSettings:
    """Who is let in at all (``[access]``); networks in their usual form.

    :ivar deny_in_files: what stands in the *deny_files*.
    """

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    deny_files: tuple[str, ...] = ()
    deny_in_files: tuple[str, ...] = attrs.field(default=(), repr=False)

    @property
    def all_denied(self) -> tuple[str, ...]:
        """What is denied, wherever it stands."""
        return self.deny + self.deny_in_files


@attrs.frozen
class AdminSettings:
    """Where the admin API listens, and who may use it (``[admin]``).

    :ivar token_file: its first line is the token every request must bear;
        ``""`` asks for none.
    :ivar certificate: what it is served with over TLS; ``None``: in the open.
    """

    endpoint: ListenEndpoint = attrs.field(factory=lambda: parse_endpoint(DEFAULT_ADMIN))
    token_file: str = ""
    # Exchanged by a reload, which a different endpoint is not.
    certificate: Certificate | None = attrs.field(default=None, eq=False)

    def mistake(self) -> str:
        """What makes these settings unsafe, or ``""``."""
        if self.token_file or self.endpoint.is_local:
            return ""
        return f"{shown(self.endpoint.text)} can be reached from other machines, so [admin] needs token_file"


@attrs.frozen
class LogSettings:
    """The request log (``[log]``).

    :ivar requests: ``logfmt``, ``json``, ``combined`` or ``off``.
    :ivar destination: ``-`` is standard output, anything else a file.
    :ivar query: whether ``path=`` has the query.
    """

    requests: str = "logfmt"
    destination: str = "-"
    query: bool = True


@attrs.frozen
class MetricsSettings:
    """``[metrics]``.

    :ivar max_apps: how many apps have a label of their own: the busiest.
    """

    max_apps: int = 1000


@attrs.frozen
class ExplainSettings:
    """``[explain]``.

    :ivar requests: how many of the last requests can be explained; 0 is none.
    """

    requests: int = 10_000


@attrs.frozen
class TopologySettings:
    """What is too much to lose by one reload (``[topology]``).

    :ivar guard_share: the part of all live apps, or of all backends.
    :ivar guard_floor_apps: fewer apps, with fewer than *guard_floor_backends*
        backends, are never too much.
    :ivar confirm_after: seconds after which what is held back counts as meant;
        0: only when it is confirmed.
    """

    guard_share: float = 0.5
    guard_floor_apps: int = 10
    guard_floor_backends: int = 20
    confirm_after: float = 0.0

    @property
    def rule(self) -> GuardRule:
        """The same as the guard knows it."""
        return GuardRule(self.guard_share, self.guard_floor_apps, self.guard_floor_backends)


@attrs.frozen
class Settings:
    """The whole configuration.

    :ivar certificates: those that apps name by their files, with their keys.
    :ivar warnings: sentences to show at the start and by ``check``.
    :ivar demo: serve two demo backends as well.
    :ivar filename: the file it was read from, or ``""``.
    """

    proxy: ProxySettings = attrs.field(factory=ProxySettings)
    listens: tuple[ListenSettings, ...] = ()
    access: AccessSettings = attrs.field(factory=AccessSettings)
    admin: AdminSettings = attrs.field(factory=AdminSettings)
    timeouts: Timeouts = attrs.field(factory=Timeouts)
    limits: Limits = attrs.field(factory=Limits)
    health: Health = attrs.field(factory=Health)
    quarantine: Quarantine = attrs.field(factory=Quarantine)
    log: LogSettings = attrs.field(factory=LogSettings)
    metrics: MetricsSettings = attrs.field(factory=MetricsSettings)
    explain: ExplainSettings = attrs.field(factory=ExplainSettings)
    topology: TopologySettings = attrs.field(factory=TopologySettings)
    apps: tuple[App, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    warnings: tuple[str, ...] = ()
    demo: bool = False
    filename: str = ""

    def with_options(
        self,
        *,
        http: Sequence[str] = (),
        tls: Sequence[str] = (),
        admin: str | None = None,
        apps: Sequence[str] = (),
        demo: bool = False,
    ) -> Settings:
        """The settings with the options of the command line added.

        Listeners and apps are added to those of the file, the admin endpoint
        replaces it.  Without any listener there is one for HTTP on port 8080,
        and for the demo another for TLS on port 8443.
        A demo without a file keeps its state in memory.

        :raises ConfigurationError: with every mistake; its path is the option.
        """
        mistakes: list[Mistake] = []
        added = _listens("http", http, mistakes) + _listens("tls", tls, mistakes)
        places = ["[[listen]]"] * len(self.listens) + [f"--{listen.protocol}" for listen in added]
        if not self.listens and not http and not tls:
            added = _default_listens(demo)
            places = [f"the default {listen.protocol.upper()} listener" for listen in added]
        merged = attrs.evolve(
            self,
            proxy=self._forgetful() if demo and not self.filename else self.proxy,
            listens=self.listens + added,
            admin=_admin(self.admin, admin, mistakes),
            apps=self.apps + _apps(apps, mistakes),
            demo=demo or self.demo,
        )
        places.append("[admin]" if admin is None else "--admin")
        mistakes += _clashes(merged, places, len(self.apps))
        if mistakes:
            raise ConfigurationError(mistakes)
        return merged

    def _forgetful(self) -> ProxySettings:
        """``[proxy]`` with the state in memory, unless another file was asked for."""
        asked_for = self.proxy.state != ProxySettings().state
        return self.proxy if asked_for else attrs.evolve(self.proxy, state="")


def parse_app_option(text: str) -> App:
    """Read ``NAME=DOMAIN[,DOMAIN]=HOST:PORT[,HOST:PORT]``; also ``https://HOST:PORT``.

    :raises ConfigurationError: with every mistake; its path is ``--app``.
    """
    parts = text.split("=")
    if len(parts) != 3 or not all(parts):
        wanted = "NAME=DOMAIN[,DOMAIN]=HOST:PORT[,HOST:PORT]"
        raise ConfigurationError([Mistake("--app", f"{shown(text)} is not {wanted}")])
    name, domains, backends = parts
    record = {"name": name, "domains": domains.split(","), "backends": backends.split(",")}
    try:
        return app_from_record(record)
    except ConfigurationError as error:
        raise ConfigurationError(Mistake("--app", mistake.message) for mistake in error.mistakes) from None


# -- clashes --------------------------------------------------------------------


def endpoint_clashes(
    endpoints: Iterable[tuple[str, ListenEndpoint]],
) -> Iterable[tuple[int, str]]:
    """Which endpoints cannot be opened because an earlier one is in the way.

    :param endpoints: each with the words by which it is known.
    :return: the index of the later one, and a sentence about it.
    """
    earlier: list[tuple[str, ListenEndpoint]] = []
    for index, (place, endpoint) in enumerate(endpoints):
        for other_place, other in earlier:
            if endpoint.clashes_with(other):
                yield index, f"{shown(endpoint.text)} is taken by {other_place} already ({shown(other.text)})"
                break
        earlier.append((place, endpoint))


def app_clashes(apps: Iterable[tuple[str, Sequence[str]]]) -> Iterable[tuple[int, int | None, str]]:
    """Which names and domains an earlier app has already.

    :param apps: the name of each, and its domains.
    :return: the index of the later app, the index of its domain (``None``
        when it is the name), and a sentence about it.
    """
    names: set[str] = set()
    owners: dict[str, str] = {}
    for index, (name, domains) in enumerate(apps):
        if name and name in names:
            yield index, None, f"there is an app {shown(name)} already"
        names.add(name)
        for position, domain in enumerate(domains):
            owner = owners.setdefault(domain, name)
            if owner != name:
                belongs = f"{shown(domain)} belongs to app {shown(owner)}"
                yield index, position, f"{belongs}, so app {shown(name)} cannot have it"


def _clashes(merged: Settings, places: Sequence[str], apps_of_file: int) -> Iterable[Mistake]:
    """What the options bring into conflict; what the file says is known to be sound."""
    endpoints = [listen.endpoint for listen in merged.listens] + [merged.admin.endpoint]
    for index, sentence in endpoint_clashes(zip(places, endpoints, strict=True)):
        yield Mistake(places[index], sentence)
    for index, _domain, sentence in app_clashes((app.name, app.domains) for app in merged.apps):
        if index >= apps_of_file:
            yield Mistake("--app", sentence)


# -- options --------------------------------------------------------------------


def _default_listens(demo: bool) -> tuple[ListenSettings, ...]:
    plain = ListenSettings(parse_endpoint(DEFAULT_HTTP), option="--http")
    return (plain, ListenSettings(parse_endpoint(DEMO_TLS), "tls", option="--tls")) if demo else (plain,)


def _listens(protocol: str, texts: Sequence[str], mistakes: list[Mistake]) -> tuple[ListenSettings, ...]:
    found = []
    refused, _warned = reserved_settings({"listen": [{"protocol": protocol}]})
    for text in texts:
        try:
            found.append(ListenSettings(parse_endpoint(text), protocol, option=f"--{protocol}"))
        except ValueError as error:
            mistakes.append(Mistake(f"--{protocol}", str(error)))
        mistakes += [Mistake(f"--{protocol}", finding.message) for finding in refused]
    return tuple(found)


def _admin(settings: AdminSettings, text: str | None, mistakes: list[Mistake]) -> AdminSettings:
    if text is None:
        return settings
    try:
        changed = attrs.evolve(settings, endpoint=parse_endpoint(text))
    except ValueError as error:
        mistakes.append(Mistake("--admin", str(error)))
        return settings
    if changed.mistake():
        mistakes.append(Mistake("--admin", changed.mistake()))
    return changed


def _apps(texts: Sequence[str], mistakes: list[Mistake]) -> tuple[App, ...]:
    found = []
    for text in texts:
        try:
            found.append(parse_app_option(text))
        except ConfigurationError as error:
            mistakes += error.mistakes
    return tuple(found)
