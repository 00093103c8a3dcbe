"""Certificates of a test's own making, wrong ones among them: an authority, and what it signs now."""

from __future__ import annotations

import time
from collections.abc import Iterable

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from scalingo_proxy.protocols import tls_authority

__all__ = ["Authority"]

_DAY = 86400.0


class Authority:
    """A certificate authority that lives as long as the test; everything is text.

    :param above: the authority that signed this one; None is a root.
    """

    def __init__(self, name: str = "test authority", above: Authority | None = None) -> None:
        begin = time.time() - _DAY
        if above is None:
            self._authority = tls_authority.Authority.create(name, begin)
        else:
            self._authority = above._authority.subordinate(name, begin)
        # Whoever wants the authorities in between to come along says so.
        self._authority.issuers = b""

    @property
    def pem(self) -> str:
        """Its own certificate."""
        return self._authority.pem.decode()

    def issue(
        self,
        names: Iterable[str] = ("backend.test",),
        *,
        days: tuple[int, int] = (-1, 10),
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> tuple[str, str]:
        """A certificate for *names* (host names and addresses, perhaps none) and its key, both PEM.

        :param days: from when to when it is valid, in days from now.
        :param usage: what it is good for.
        """
        begin, end = days
        now = time.time() + begin * _DAY
        chain, key = self._authority.issue(list(names), now, end - begin, usage=usage)
        return chain.decode(), key.decode()
