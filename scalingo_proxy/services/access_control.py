"""The address lists that hold for everybody: those of the file, and those told to the admin API.

Both count together: an address is denied when either denies it, and where
either allows only some, one of them has to allow it.  Lists of thousands are
compiled in a thread.  Knows no HTTP; what a list does is in
:mod:`scalingo_proxy.routing.access`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from scalingo_proxy.resolvers.store import StoreResolver
from scalingo_proxy.resolvers.strict_tables import Refused, TableReader, list_of, network
from scalingo_proxy.routing.access import AccessRules
from scalingo_proxy.routing.policies import Policies

__all__ = ["AccessControl"]

_log = Logger()

_NETWORKS = list_of(network, "networks")
_RECORD = TableReader({"deny": _NETWORKS, "allow": _NETWORKS})

#: Where the store keeps what was told.
_DOCUMENT = "access"


class AccessControl:
    """Keeps the rules of *policies* what the file and the admin API say.

    :param policies: whose rules these are.
    :param store: where what was told survives a restart.
    :param reactor: its threads compile long lists.
    :param deny: what the file says at the start; compiled at once, as is *allow*.
    """

    def __init__(
        self,
        *,
        policies: Policies,
        store: StoreResolver,
        reactor: Any,
        deny: tuple[str, ...] = (),
        allow: tuple[str, ...] = (),
    ) -> None:
        self._policies = policies
        self._store = store
        self._reactor = reactor
        self._file = deny, allow
        self._turn = DeferredLock()
        policies.access = self._compiled({})

    # -- what is in effect -----------------------------------------------------

    @property
    def told(self) -> Mapping[str, Any]:
        """What the admin API was told: ``deny`` and ``allow``."""
        return {"deny": [], "allow": [], **self._store.documents.get(_DOCUMENT, {})}

    @property
    def counts(self) -> Mapping[str, int]:
        """How many networks of the file are in effect beside those that were told."""
        deny, allow = self._file
        return {"deny": len(deny), "allow": len(allow)}

    # -- changes ---------------------------------------------------------------

    def put(self, record: Any) -> Deferred[Mapping[str, Any]]:
        """Replace what was told; fires with it when it is stored and in effect.

        Fails with ConfigurationError (every mistake) or ResolverUnavailable;
        then nothing has changed.
        """
        return self._turn.run(lambda: Deferred.fromCoroutine(self._put(record)))

    async def _put(self, record: Any) -> Mapping[str, Any]:
        told = await self._in_thread(_read, record)
        rules = await self._in_thread(self._compiled, told)
        await self._store.set_document(_DOCUMENT, told if any(told.values()) else None)
        self._policies.access = rules
        return self.told

    def replace_file(self, deny: tuple[str, ...], allow: tuple[str, ...]) -> Deferred[None]:
        """Take over what the file says now."""
        if (deny, allow) == self._file:
            return succeed(None)
        self._file = deny, allow
        return self._turn.run(lambda: Deferred.fromCoroutine(self._refresh()))

    def store_loaded(self) -> None:
        """Take over what the store has kept; at once, because from now on apps are found."""
        try:
            told = _read(self._store.documents.get(_DOCUMENT, {}))
            if told:
                self._policies.access = self._compiled(told)
        except Exception:  # a damaged document must not let the rest fall
            _log.failure("what the admin API was told of address lists cannot be used")

    async def _refresh(self) -> None:
        try:
            told = _read(self._store.documents.get(_DOCUMENT, {}))
            self._policies.access = await self._in_thread(self._compiled, told)
        except Exception:  # a damaged document must not let the rest fall
            _log.failure("the address lists cannot be compiled; those before stay in effect")

    def _compiled(self, told: Mapping[str, Any]) -> AccessRules:
        deny, allow = self._file
        return AccessRules((*deny, *told.get("deny", ())), (*allow, *told.get("allow", ())))

    def _in_thread(self, function: Any, *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *args)


def _read(record: Any) -> dict[str, Any]:
    try:
        given = _RECORD(record)
    except Refused as error:
        raise error.as_configuration_error() from None
    return {key: list(networks) for key, networks in given.items()}
