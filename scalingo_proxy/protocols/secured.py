"""What an HTTP connection has to know of the TLS that ended below it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from scalingo_proxy.wire.http1_forwarding import ClientIdentity

__all__ = ["Secured"]


@attrs.frozen
class Secured:
    """The facts of one handshake.

    :ivar version: such as ``"TLSv1.3"``.
    :ivar covers: whether the certificate that was served covers a host.
    :ivar identity: who the client is, where the door for TLS knows it already.
    """

    version: str
    covers: Callable[[str], bool]
    identity: ClientIdentity | None = None
