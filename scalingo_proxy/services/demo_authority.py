"""The demo's own little certificate authority, kept in a folder.

Made when it is first needed and used again afterwards, so that a client has to
be told of it once.  It can vouch for names below ``localhost`` and no others.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from scalingo_proxy.errors import ConfigurationError, Mistake
from scalingo_proxy.protocols.tls_authority import Authority

__all__ = ["DEMO_FOLDER", "demo_authority"]

#: Where ``--demo`` keeps it, in the working directory.
DEMO_FOLDER = "scalingo-demo"

_DAYS = 365.0
_NAME = "scalingo-proxy demo CA"


def demo_authority(folder: str, wall_clock: Callable[[], float]) -> Authority:
    """The authority in *folder*, a new one if there is none that can be used.

    Its certificate is ``ca.pem`` there, its key ``ca.key`` with mode 0600.

    :raises ConfigurationError: the folder cannot be written to.
    """
    certificate, key = os.path.join(folder, "ca.pem"), os.path.join(folder, "ca.key")
    now = wall_clock()
    try:
        with open(certificate, "rb") as public, open(key, "rb") as private:
            authority = Authority.load(public.read(), private.read())
        # A month is left at least: what it issues must not outlive it.
        if authority.certificate.not_valid_after_utc.timestamp() > now + 31 * 86400:
            return authority
    except (OSError, ValueError):
        pass  # there is none, or none of ours: a new one does
    authority = Authority.create(_NAME, now, _DAYS, within=["localhost"])
    try:
        os.makedirs(folder, exist_ok=True)
        _write(key, authority.key_pem, 0o600)
        _write(certificate, authority.pem, 0o644)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        sentence = f"the demo's certificates cannot be kept in {folder!r}: {reason}"
        raise ConfigurationError([Mistake("--demo", sentence)]) from None
    return authority


def _write(path: str, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
