"""States that the metrics page tells as they are when it is fetched.

Each function adds one family to a :class:`~scalingo_proxy.services.metrics.Metrics`,
so that the names, which are a promise to dashboards, stand together.  Where
the numbers come from is handed in; nothing is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from scalingo_proxy.model import Certificate
from scalingo_proxy.services.exposition import Family
from scalingo_proxy.services.metrics import Metrics
from scalingo_proxy.services.resolver_updates import SourceState
from scalingo_proxy.transports.descriptors import Descriptors

__all__ = [
    "add_accepting",
    "add_acme_orders",
    "add_build_info",
    "add_certificates",
    "add_clients",
    "add_denied",
    "add_descriptors",
    "add_handshakes",
    "add_health_checks",
    "add_log_lines_dropped",
    "add_process_start_time",
    "add_quarantines",
    "add_reactor_lag",
    "add_resolvers",
    "add_retries",
    "add_routes",
    "add_topology_held",
    "add_workers",
]

_RESOLVER_UP = Family(
    "scalingo_proxy_resolver_up", "gauge", "Whether a source of routes can answer now.", ("resolver",)
)
_RESOLVER_LAST_SYNC = Family(
    "scalingo_proxy_resolver_last_sync_timestamp_seconds",
    "gauge",
    "When a source of routes was last known to be up to date, since the epoch.",
    ("resolver",),
)
_RESOLVER_UPDATES = Family(
    "scalingo_proxy_resolver_updates_total",
    "counter",
    "Changes that a source of routes told of, by what became of them: applied or held.",
    ("resolver", "result"),
)
_TOPOLOGY_HELD = Family(
    "scalingo_proxy_topology_held",
    "gauge",
    "Whether an update of a source of routes is held back, because it would remove too much.",
    ("resolver",),
)


def add_accepting(metrics: Metrics, is_paused: Callable[[], bool], pauses: Callable[[], int]) -> None:
    """Whether new clients wait because descriptors are short, and how often that came about."""
    paused = Family(
        "scalingo_proxy_accepts_paused",
        "gauge",
        "Whether new clients wait in the system's queue because descriptors are short (1).",
    )
    total = Family(
        "scalingo_proxy_accept_pauses_total",
        "counter",
        "How often accepting was paused because descriptors were short.",
    )
    metrics.add(paused, lambda: [((), is_paused())])
    metrics.add(total, lambda: [((), pauses())])


def add_descriptors(metrics: Metrics, read: Callable[[], Descriptors]) -> None:
    """How many descriptors the process has open, and how many it may have."""
    in_use = Family("scalingo_proxy_open_descriptors", "gauge", "Descriptors that the process has open.")
    limit = Family("scalingo_proxy_max_descriptors", "gauge", "Descriptors that the process may have open.")
    metrics.add(in_use, lambda: [((), read().used)])
    metrics.add(limit, lambda: [((), read().limit)])


def add_quarantines(metrics: Metrics, counts: Callable[[], Mapping[tuple[str, str], int]]) -> None:
    """How often backends were put into quarantine, by app and cause."""
    family = Family(
        "scalingo_proxy_backend_quarantines_total",
        "counter",
        "How often a backend was put into quarantine, by what it had done.",
        ("app", "reason"),
    )
    metrics.add(family, lambda: counts().items())


def add_health_checks(metrics: Metrics, results: Mapping[str, int]) -> None:
    """Probes of backends, by result."""
    metrics.add(
        Family(
            "scalingo_proxy_health_checks_total",
            "counter",
            "Probes of backends: passed, failed, or not made for want of means (error).",
            ("result",),
        ),
        lambda: [((result,), count) for result, count in results.items()],
    )


def add_retries(
    metrics: Metrics, counts: Callable[[], Mapping[str, int]], refused: Callable[[], int]
) -> None:
    """How often requests went on to another connection, by why, and how often they may not have."""
    family = Family(
        "scalingo_proxy_retries_total",
        "counter",
        "How often a request went on to another connection, by what had become of the one before.",
        ("reason",),
    )
    metrics.add(family, lambda: (((reason,), count) for reason, count in counts().items()))
    family = Family(
        "scalingo_proxy_retries_refused_total",
        "counter",
        "How often a request was not sent again because its app's budget was spent.",
    )
    metrics.add(family, lambda: [((), refused())])


def add_routes(metrics: Metrics, count: Callable[[], int]) -> None:
    """How many domains are known."""
    family = Family("scalingo_proxy_routes", "gauge", "Domains that are known.")
    metrics.add(family, lambda: [((), count())])


def add_resolvers(metrics: Metrics, states: Callable[[], Iterable[SourceState]]) -> None:
    """Whether each source of routes works, and how fresh it is, by its name."""
    families = (
        (_RESOLVER_UP, lambda state: state.is_up),
        (_RESOLVER_LAST_SYNC, lambda state: state.synced_at),
    )
    for family, number in families:
        metrics.add(family, partial(_by_source, states, number))
    metrics.add(_RESOLVER_UPDATES, partial(_by_result, states))


def add_topology_held(metrics: Metrics, states: Callable[[], Iterable[tuple[tuple[str], bool]]]) -> None:
    """Whether something is held back, by the source that it came from."""
    metrics.add(_TOPOLOGY_HELD, states)


def _by_result(states: Callable[[], Iterable[SourceState]]) -> Iterator[tuple[tuple[str, str], int]]:
    for state in states():
        yield (state.name, "applied"), state.updates
        yield (state.name, "held"), state.held


def _by_source(
    states: Callable[[], Iterable[SourceState]], number: Callable[[SourceState], float]
) -> Iterator[tuple[tuple[str], float]]:
    return (((state.name,), number(state)) for state in states())


def add_reactor_lag(metrics: Metrics, seconds: Callable[[], float]) -> None:
    """How late the reactor was."""
    family = Family(
        "scalingo_proxy_reactor_lag_seconds",
        "gauge",
        "How late the reactor came at worst, within the last 15 seconds.",
    )
    metrics.add(family, lambda: [((), seconds())])


def add_workers(metrics: Metrics, states: Callable[[], Iterable[tuple[str, bool]]]) -> None:
    """Whether each worker process serves, by its number."""
    family = Family(
        "scalingo_proxy_worker_up", "gauge", "Whether a worker process serves requests.", ("worker",)
    )
    metrics.add(family, lambda: (((worker,), is_up) for worker, is_up in states()))


def add_acme_orders(metrics: Metrics, counts: Callable[[], Mapping[str, int]]) -> None:
    """How many certificates were ordered by ACME, by how it went."""
    family = Family(
        "scalingo_proxy_acme_orders_total", "counter", "Certificates ordered by ACME.", ("result",)
    )
    metrics.add(family, lambda: (((result,), count) for result, count in counts().items()))


def add_certificates(metrics: Metrics, certificates: Iterable[Certificate]) -> None:
    """When each certificate expires, by its name."""
    family = Family(
        "scalingo_proxy_certificate_expiry_timestamp_seconds",
        "gauge",
        "When a certificate expires, since the epoch.",
        ("name",),
    )
    metrics.add(family, lambda: (((each.name,), each.not_after) for each in certificates))


def add_clients(metrics: Metrics, refused: Mapping[str, int], given_up: Callable[[], int]) -> None:
    """How many client connections were turned away by each limit, and how many idle ones made room."""
    family = Family(
        "scalingo_proxy_connections_refused_total",
        "counter",
        "Client connections turned away by a limit: of all together, or of one address.",
        ("limit",),
    )
    metrics.add(family, lambda: (((name,), count) for name, count in refused.items()))
    family = Family(
        "scalingo_proxy_connections_given_up_total",
        "counter",
        "Idle client connections that were closed to make room for others.",
    )
    metrics.add(family, lambda: [((), given_up())])


def add_handshakes(metrics: Metrics, refused: Mapping[str, int], waiting: Callable[[], int]) -> None:
    """How many TLS handshakes wait for their turn, and how many were refused by each limit."""
    family = Family(
        "scalingo_proxy_tls_handshakes_refused_total",
        "counter",
        "TLS handshakes refused by a limit: of one address, or of the queue of those that wait.",
        ("limit",),
    )
    metrics.add(family, lambda: (((name,), count) for name, count in refused.items()))
    family = Family(
        "scalingo_proxy_tls_handshakes_waiting", "gauge", "TLS handshakes that wait for their turn."
    )
    metrics.add(family, lambda: [((), waiting())])


def add_denied(metrics: Metrics, counts: Mapping[str, int]) -> None:
    """How many clients each kind of address list kept out."""
    family = Family(
        "scalingo_proxy_denied_total", "counter", "Clients refused by an address list, by list.", ("list",)
    )
    metrics.add(family, lambda: (((name,), count) for name, count in counts.items()))


def add_log_lines_dropped(metrics: Metrics, count: Callable[[], int]) -> None:
    """How many lines of the request log were lost."""
    family = Family(
        "scalingo_proxy_log_lines_dropped_total",
        "counter",
        "Lines of the request log that could not be written.",
    )
    metrics.add(family, lambda: [((), count())])


def add_process_start_time(metrics: Metrics, wall_time: float) -> None:
    """When the process began, in seconds since the epoch."""
    family = Family(
        "scalingo_proxy_process_start_time_seconds", "gauge", "When the process began, since the epoch."
    )
    metrics.add(family, lambda: [((), wall_time)])


def add_build_info(metrics: Metrics, facts: Mapping[str, str]) -> None:
    """A constant 1 whose labels say what runs, such as ``name``, ``version``, ``python`` and ``twisted``."""
    family = Family("scalingo_proxy_build_info", "gauge", "What runs here.", tuple(facts))
    metrics.add(family, lambda: [(tuple(facts.values()), 1)])
