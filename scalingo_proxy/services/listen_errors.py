"""Why an endpoint could not be opened, as one sentence for whoever runs the proxy.

Turns what the system and Twisted raise into words; opens nothing itself.
"""

from __future__ import annotations

import errno
import os
import stat

from twisted.internet.error import CannotListenError

from scalingo_proxy.resolvers.strict_tables import shown
from scalingo_proxy.services.endpoint_strings import ListenEndpoint

__all__ = ["LISTEN_ERRORS", "explain_listen_error"]

#: What opening an endpoint raises for reasons that lie outside of the program.
#: LookupError: systemd handed down no such socket.
LISTEN_ERRORS = (CannotListenError, OSError, LookupError, ValueError)


def explain_listen_error(endpoint: ListenEndpoint, error: BaseException) -> str:
    """One sentence that names the endpoint, what is wrong, and where it helps, what to do."""
    return f"cannot listen on {shown(endpoint.text)}: {_reason(endpoint, error)}"


def _reason(endpoint: ListenEndpoint, error: BaseException) -> str:
    if endpoint.kind == "systemd" and isinstance(error, LookupError):
        return "systemd handed down no such socket"
    cause = error.socketError if isinstance(error, CannotListenError) else error
    number = getattr(cause, "errno", None)
    known = (
        _unix_reason(endpoint, number, cause) if endpoint.kind == "unix" else _tcp_reason(endpoint, number)
    )
    if known:
        return known
    # Resolver errors have numbers of their own, so the text is taken from the error itself.
    return (getattr(cause, "strerror", None) or str(cause)).lower()


def _tcp_reason(endpoint: ListenEndpoint, number: int | None) -> str:
    port, interface = endpoint.port, endpoint.interface
    if number == errno.EADDRINUSE:
        return f"port {port} is in use by another program"
    if number == errno.EACCES:
        return f"no permission for port {port} (ports below 1024 need root or CAP_NET_BIND_SERVICE)"
    if number == errno.EADDRNOTAVAIL:
        return f"this machine has no address {interface}"
    if number == errno.EAFNOSUPPORT and ":" in interface:
        return "this machine has no IPv6"
    return ""


def _unix_reason(endpoint: ListenEndpoint, number: int | None, cause: object) -> str:
    path = endpoint.path
    if number == errno.EADDRINUSE or isinstance(cause, str):  # the text says that Twisted's lock is held
        if os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
            return "there is a file of that name that is no socket"
        return "another program listens there"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return f"there is no directory {shown(os.path.dirname(path))}"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to create a socket in {shown(os.path.dirname(path) or '.')}"
    return ""
