"""Every request of the corpus through the whole proxy: what reached the backend?

The wire tests say how each input is read; these say what came of it at the
other end, as a reader of messages that has no part in the proxy sees it: no
more requests than were counted, each whole one as the case has it, and never
a byte that it could not place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from scalingo_proxy.model import App, Route, RouteQuery
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.messages import Request
from scalingo_proxy.testing.world import World
from tests.corpus import Case, load_cases
from tests.protocols.tls_worlds import TLSDoor, connect_inside, cut_by, whole
from tests.protocols.worlds import WorldTestCase
from tests.wire.http1_strategies import EXAMPLES

_PEERS = {"": "192.0.2.1", "trusted": "10.0.0.9"}
_CASES = [case for case in load_cases("requests") if case.peer in _PEERS]


class AnyHost:
    """Routes every host to one app, so that a host that got through shows."""

    name = "any"

    def __init__(self) -> None:
        self.app: App | None = None

    def set_app(self, app: App) -> None:
        self.app = app

    def resolve(self, query: RouteQuery) -> Route:
        assert self.app is not None
        return Route(self.app, query.host, self.name)


def complaints(case: Case, requests: list[Request], malformed: list[str]) -> list[str]:
    """What reached the backend and should not have, or the other way round."""
    found = [f"the backend could not read: {why}" for why in malformed]
    whole = [request for request in requests if request.is_complete]
    if len(requests) > len(case.accepts) + 1:
        found.append(f"{len(requests)} requests reached the backend, {len(case.accepts)} were accepted")
    if len(whole) > len(case.accepts):
        found.append(f"{len(whole)} whole requests reached the backend")
    if case.then == "ready" and len(whole) < len(case.accepts):
        found.append(f"of {len(case.accepts)} requests, {len(whole)} reached the backend")
    for request, outcome in zip(whole, case.accepts, strict=False):
        method, target, _host = outcome.line.split(" ")
        told = (request.method.decode(), request.target.decode(), request.body)
        if told != (method, target, outcome.body):
            found.append(f"the backend saw {told}, not {(method, target, outcome.body)}")
    return found


def failures(
    run_case: Callable[..., list[str]], cases: Iterable[Any], **options: Any
) -> dict[str, list[str]]:
    """What is wrong with each case, by its name; each is run from a seed of its own."""
    return {
        case.name: found
        for seed, case in enumerate(cases)
        if (found := run_case(case, seed=seed, **options))
    }


def every(cases: Sequence[Any], step: int, first: int) -> Sequence[Any]:
    """One of *step* cases, from the one at *first* on: all of them where ``EXAMPLES`` asks for much.

    The same cases go plain through each cut, so that TLS need not carry each in every one.
    """
    return cases if EXAMPLES else cases[first::step]


class PlainTests(WorldTestCase):
    """Over plain connections, in one piece and cut at random."""

    def run_case(self, case: Case, **options: Any) -> list[str]:
        world = World(resolver=AnyHost(), trusted_proxies=["10.0.0.0/8"], **options)
        app = world.app("any", ["any.test"])
        client = world.client(_PEERS[case.peer])
        client.send(case.input)
        world.advance(1.0)
        if case.closed:
            client.close()
        world.advance(1.0)
        found = complaints(case, app.backend.requests, app.backend.malformed)
        world.end()
        return found

    def test_whole(self) -> None:
        """As one segment."""
        self.assertGreater(len(_CASES), 400)
        self.assertEqual({}, failures(self.run_case, _CASES))

    def test_cut(self) -> None:
        """In segments of random sizes."""
        self.assertEqual({}, failures(self.run_case, _CASES, cut=True))


class TLSTests(WorldTestCase):
    """Inside TLS that ends at the proxy."""

    def run_case(self, case: Case, seed: int, cut: bool = False) -> list[str]:
        world = World(seed, resolver=AnyHost(), build=TLSDoor, trusted_proxies=["10.0.0.0/8"], cut=cut)
        app = world.app("any", ["any.test"])
        records = cut_by(Random(seed)) if cut else whole
        client = connect_inside(world, ScriptedClient(world.network), _PEERS[case.peer], records)
        client.send(case.input)
        world.advance(1.0)
        client.abort()
        world.advance(1.0)
        found = complaints(case, app.backend.requests, app.backend.malformed)
        world.end()
        return found

    def test_whole(self) -> None:
        """As one write inside TLS."""
        self.assertEqual({}, failures(self.run_case, every(_CASES, 2, 0)))

    def test_cut(self) -> None:
        """In records and segments of random sizes, those that the other test leaves out."""
        self.assertEqual({}, failures(self.run_case, every(_CASES, 2, 1), cut=True))
