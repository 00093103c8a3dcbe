"""Several resolvers asked one after the other; the first answer wins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from scalingo_proxy.errors import ResolverUnavailable, UnknownHost
from scalingo_proxy.interfaces import IResolver
from scalingo_proxy.model import Route, RouteQuery

__all__ = ["ChainResolver"]


@implementer(IResolver)
class ChainResolver:
    """Asks *resolvers* in order, at once as long as they answer at once.

    One that does not know the host, or cannot tell now, passes the question
    on.  Any other error is a bug there and ends the search.
    """

    def __init__(self, resolvers: Iterable[IResolver], name: str = "chain") -> None:
        self.name = name
        self._resolvers = tuple(resolvers)

    def resolve(self, query: RouteQuery) -> Route | Deferred[Route]:
        """The first answer; the route tells which resolver gave it.

        :raises UnknownHost: when every resolver says so.
        :raises ResolverUnavailable: when nobody knows the host, and one that
            could not tell might.
        """
        return self._ask(0, query, None)

    def _ask(
        self, first: int, query: RouteQuery, silent: ResolverUnavailable | None
    ) -> Route | Deferred[Route]:
        for index in range(first, len(self._resolvers)):
            try:
                answer: Any = self._resolvers[index].resolve(query)
            except UnknownHost:
                continue
            except ResolverUnavailable as error:
                silent = silent or error
                continue
            if isinstance(answer, Deferred):
                # Cancelling what is returned cancels whichever question is out.
                waiting: Deferred[Route] = answer.addErrback(self._ask_next, index + 1, query, silent)
                return waiting
            route: Route = answer
            return route
        if silent is not None:
            raise silent
        raise UnknownHost

    def _ask_next(
        self, failure: Failure, index: int, query: RouteQuery, silent: ResolverUnavailable | None
    ) -> Any:
        error = failure.value
        if isinstance(error, ResolverUnavailable):
            silent = silent or error
        elif not isinstance(error, UnknownHost):
            return failure
        return self._ask(index, query, silent)
