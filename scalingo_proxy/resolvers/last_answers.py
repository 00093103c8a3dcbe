"""What a resolver answered last, for the time when it does not answer.

The resolver is asked each time.  Only when it fails, answers nonsense or takes
too long is the last answer given again.  That nobody claims a host is an
answer like any other, and ends what was known of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.errors import ResolverUnavailable, UnknownHost
from scalingo_proxy.model import App, Route, RouteQuery

__all__ = ["MAX_ANSWERS", "LastAnswers"]

_log = Logger()

#: How many hosts are remembered; those that were not asked for longest go first.
MAX_ANSWERS = 10_000


class LastAnswers:
    """Asks *inner*, and remembers.

    :param patience: seconds after which a last answer is given.
    """

    def __init__(self, inner: Any, reactor: Any, patience: float) -> None:
        self._inner = inner
        self._reactor = reactor
        self._patience = patience
        self._known: OrderedDict[tuple[str, str], Route] = OrderedDict()
        self._has_complained = False

    def resolve(self, query: RouteQuery, is_excluded: Callable[[App], bool]) -> Route | Deferred[Route]:
        """Ask *inner*.

        :param is_excluded: whether an app must not be answered with, because
            others say what becomes of it.
        :raises UnknownHost: (or the Deferred fails with it) when *inner* says so.
        :raises ResolverUnavailable: (or the Deferred fails with it) when it
            does not answer, and has not answered before.
        """
        try:
            answer = self._inner.resolve(query)
        except UnknownHost:
            self._known.pop(_key(query), None)
            raise
        except Exception as error:
            return self._instead(query, error)
        if isinstance(answer, Deferred):
            return self._wait(query, answer, is_excluded)
        return self._judged(query, answer, is_excluded)

    def _judged(self, query: RouteQuery, answer: Any, is_excluded: Callable[[App], bool]) -> Route:
        if not isinstance(answer, Route) or not isinstance(answer.app, App):
            return self._instead(query, TypeError(f"{type(answer).__name__} is no Route"))
        if is_excluded(answer.app):
            raise UnknownHost
        self._has_complained = False
        key = _key(query)
        self._known[key] = answer
        self._known.move_to_end(key)
        if len(self._known) > MAX_ANSWERS:
            self._known.popitem(last=False)
        return answer

    def _instead(self, query: RouteQuery, error: BaseException | None) -> Route:
        if not self._has_complained:
            self._has_complained = True
            _log.warn(
                "resolver {name} fails ({error!r}); what it answered before is answered again",
                name=getattr(self._inner, "name", "?"),
                error=error,
            )
        route = self._known.get(_key(query))
        if route is not None:
            return route
        if isinstance(error, ResolverUnavailable):
            raise error
        raise ResolverUnavailable from error

    def _wait(
        self, query: RouteQuery, asked: Deferred[Any], is_excluded: Callable[[App], bool]
    ) -> Deferred[Route]:
        end: Deferred[Route] = Deferred(lambda _: asked.cancel())
        timer: IDelayedCall | None = None

        def over() -> bool:
            if timer is not None and timer.active():
                timer.cancel()
            return not end.called

        def answered(answer: Any) -> None:
            if over():
                try:
                    end.callback(self._judged(query, answer, is_excluded))
                except Exception:
                    end.errback()

        def failed(failure: Failure) -> None:
            error = failure.value
            if not over():
                return
            if isinstance(error, UnknownHost):
                self._known.pop(_key(query), None)
            if isinstance(error, UnknownHost | CancelledError):
                end.errback(failure)
                return
            try:
                end.callback(self._instead(query, error))
            except ResolverUnavailable:
                end.errback()

        def too_late() -> None:
            end.callback(self._instead(query, TimeoutError(f"no answer within {self._patience} s")))
            asked.cancel()

        if _key(query) in self._known:
            timer = self._reactor.callLater(self._patience, too_late)
        asked.addCallbacks(answered, failed)
        return end


def _key(query: RouteQuery) -> tuple[str, str]:
    return query.host, query.protocol
