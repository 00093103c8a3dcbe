"""The shared vocabulary: frozen values that every layer may hold.

Nothing here does I/O, knows a clock or changes after it was made.  Times are
seconds, sizes are bytes.
"""

from scalingo_proxy.model.addresses import join_host_port, split_backend_address, split_host_port
from scalingo_proxy.model.apps import (
    App,
    AppState,
    Backend,
    BackendTrust,
    Health,
    Limits,
    Quarantine,
    Timeouts,
)
from scalingo_proxy.model.certificates import Certificate, CertificateChange
from scalingo_proxy.model.records import Outcome, ProbeResult, Record
from scalingo_proxy.model.routes import Route, RouteQuery, TopologyChange

__all__ = [
    "App",
    "AppState",
    "Backend",
    "BackendTrust",
    "Certificate",
    "CertificateChange",
    "Health",
    "Limits",
    "Outcome",
    "ProbeResult",
    "Quarantine",
    "Record",
    "Route",
    "RouteQuery",
    "Timeouts",
    "TopologyChange",
    "join_host_port",
    "split_backend_address",
    "split_host_port",
]
