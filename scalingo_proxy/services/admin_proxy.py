"""The admin API about the proxy itself: status, reload, metrics, health, what there is.

``/live`` and ``/ready`` are for whoever restarts or routes to the proxy, so
they need no token and tell nothing else.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from scalingo_proxy.errors import ConfigurationError
from scalingo_proxy.services.admin_answers import Answer, Refusal, json_answer, text_answer
from scalingo_proxy.services.admin_routes import API, AdminRoute, Call
from scalingo_proxy.services.control import Control
from scalingo_proxy.services.exposition import CONTENT_TYPE

__all__ = ["ProxyApi"]


class ProxyApi:
    """Everything that is about no app in particular.

    :param metrics_page: makes the metrics page, piece by piece; other work is done in
        between, because a large page takes longer than anybody should wait.
    :param unready: tells why the proxy should get no traffic now, in
        sentences; none means that it is ready.
    :param warnings: tells what is wrong although traffic may come.
    :param facts: what ``/status`` tells beside the counts, JSON-shaped.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        control: Control,
        metrics_page: Callable[[], Iterable[str]],
        unready: Callable[[], Sequence[str]],
        facts: Callable[[], Mapping[str, Any]],
        warnings: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._reactor = reactor
        self._control = control
        self._metrics_page = metrics_page
        self._unready = unready
        self._facts = facts
        self._warnings = warnings
        self._others: Sequence[AdminRoute] = ()

    def routes(self, others: Sequence[AdminRoute]) -> list[AdminRoute]:
        """Its lines of the table; ``/`` lists them with the *others*."""
        own = [
            AdminRoute("GET", "/", self._index),
            AdminRoute("GET", "/live", self._live, is_open=True),
            AdminRoute("GET", "/ready", self._ready, is_open=True),
            AdminRoute("GET", "/metrics", self._metrics),
            AdminRoute("GET", f"{API}/openapi.json", self._openapi),
            AdminRoute("GET", f"{API}/status", self._status),
            AdminRoute("POST", f"{API}/reload", self._reload),
        ]
        self._others = [*own, *others]
        return own

    def _live(self, _call: Call) -> Answer:
        return json_answer({"live": True})

    def _ready(self, _call: Call) -> Answer:
        reasons = list(self._unready())
        warnings = list(self._warnings())
        told = {"ready": not reasons, "reasons": reasons, **({"warnings": warnings} if warnings else {})}
        return json_answer(told, 503 if reasons else 200)

    def _metrics(self, _call: Call) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self._metrics_answer())

    async def _metrics_answer(self) -> Answer:
        made: list[bytes] = []
        for piece in self._metrics_page():
            if made:
                await deferLater(self._reactor, 0)
            made.append(piece.encode("utf-8"))
        return Answer(b"".join(made), content_type=CONTENT_TYPE)

    def _openapi(self, _call: Call) -> Answer:
        return Answer(files("scalingo_proxy.services").joinpath("openapi.json").read_bytes())

    def _status(self, _call: Call) -> Answer:
        reasons = list(self._unready())
        ready = {"ready": not reasons, "reasons": reasons}
        return json_answer({**self._facts(), **ready, **self._control.status()})

    def _reload(self, _call: Call) -> Deferred[Answer]:
        def reloaded(report: Any) -> Answer:
            return json_answer({"reloaded": True, "report": report})

        return self._control.reload().addCallbacks(reloaded, _refused_reload)

    def _index(self, call: Call) -> Answer:
        lines = [(route.method, route.path) for route in self._others]
        if call.wants_html:
            return text_answer(_index_page(lines), "text/html; charset=utf-8")
        return text_answer("scalingo_proxy\n\n" + "".join(f"{method:7}{path}\n" for method, path in lines))


def _refused_reload(failure: Failure) -> Any:
    """The request was fine, the file is not: that is a conflict, not a bad request."""
    error = failure.value
    if isinstance(error, ConfigurationError):
        message = f"nothing has changed: {error}"
        raise Refusal(409, "broken-configuration", message, mistakes=error.mistakes)
    return failure


def _index_page(lines: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><td>{method}<td>{_linked(method, path)}" for method, path in lines)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>scalingo_proxy</title>'
        f"<h1>scalingo_proxy</h1><table>{rows}</table>\n"
    )


def _linked(method: str, path: str) -> str:
    text = html.escape(path)
    return f'<a href="{text}">{text}</a>' if method == "GET" and "{" not in path else text
