"""What every resolver owes the proxy: one suite for all of them.

Mix :class:`ResolverContract` into a trial ``TestCase`` that says how one is
made, and trial does the rest::

    class DirectoryResolverTests(ResolverContract, TestCase):
        async def make_resolver(self, apps):
            return DirectoryResolver(await a_directory_of(apps))

It knows nothing about where routes come from.  Answers may come at once or
later.  What a resolver that tells of changes owes besides is in
:mod:`scalingo_proxy.testing.feed_contract`.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from zope.interface.verify import verifyObject

from scalingo_proxy.errors import UnknownHost
from scalingo_proxy.interfaces import IResolver
from scalingo_proxy.model import App, AppState, Route, RouteQuery
from scalingo_proxy.testing.trial_case import MixedIntoTestCase

__all__ = ["ResolverContract", "an_app", "ask", "owner_of"]


def an_app(name: str, *domains: str, port: int = 3000, state: AppState = AppState.RUNNING) -> App:
    """An app with one backend."""
    return App(name, cast(Any, domains), (f"127.0.0.1:{port}",), state=state)


async def ask(resolver: Any, host: str) -> Route:
    """The route that *resolver* finds for *host*, at once or later."""
    answer = await maybeDeferred(resolver.resolve, RouteQuery(host, client="192.0.2.7"))
    if not isinstance(answer, Route):
        raise AssertionError(f"{answer!r} is not a Route")
    return answer


async def owner_of(resolver: Any, host: str) -> str:
    """The name of the app that serves *host*; empty when nobody claims it."""
    try:
        return (await ask(resolver, host)).app.name
    except UnknownHost:
        return ""


class ResolverContract(MixedIntoTestCase):
    """What IResolver promises."""

    async def make_resolver(self, apps: tuple[App, ...]) -> Any:
        """A resolver that knows *apps*; clean up after it by ``addCleanup``."""
        raise NotImplementedError

    async def resolver(self, *apps: App) -> Any:
        """A resolver that knows *apps*."""
        return await self.make_resolver(apps)

    async def test_resolver_interface(self) -> None:
        """It provides IResolver and has a name."""
        resolver = await self.resolver()
        verifyObject(IResolver, resolver)
        self.assertTrue(resolver.name and isinstance(resolver.name, str))

    async def test_answer(self) -> None:
        """The answer holds the app as it was told, the domain that matched, and who answered."""
        app = App(
            "hello",
            cast(Any, ("hello.example", "www.hello.example")),
            ("127.0.0.1:3000", "[::1]:3001"),
            balancer="least_requests",
            timeouts={"queue": 5.0},
        )
        route = await ask(await self.resolver(an_app("other", "other.example"), app), "www.hello.example")
        self.assertEqual(route.app, app)
        self.assertEqual(route.domain, "www.hello.example")
        self.assertTrue(route.resolver)

    async def test_plain_answer(self) -> None:
        """What resolve gives is a Route or a Deferred, nothing else that can be waited for."""
        answer = (await self.resolver(an_app("a", "a.example"))).resolve(RouteQuery("a.example"))
        self.assertIsInstance(answer, (Route, Deferred))
        await maybeDeferred(lambda: answer)

    async def test_every_protocol(self) -> None:
        """A host is found for TLS as it is for HTTP."""
        resolver = await self.resolver(an_app("a", "a.example"))
        route = await maybeDeferred(resolver.resolve, RouteQuery("a.example", protocol="tls"))
        self.assertEqual(route.app.name, "a")

    async def test_any_state(self) -> None:
        """An app that does not serve at the moment is found all the same: that is the pool's matter."""
        resolver = await self.resolver(
            an_app("stopped", "stopped.example", state=AppState.STOPPED),
            App("empty", cast(Any, ("empty.example",))),
        )
        self.assertIs((await ask(resolver, "stopped.example")).app.state, AppState.STOPPED)
        self.assertEqual((await ask(resolver, "empty.example")).app.backends, ())

    async def test_unknown_host(self) -> None:
        """A host that no app claims is an UnknownHost, in an empty topology too."""
        for resolver in (await self.resolver(), await self.resolver(an_app("a", "a.example"))):
            for host in ("b.example", "example", "x.a.example", "a.example.x", ""):
                self.assertEqual(await owner_of(resolver, host), "", host)

    async def test_wildcard(self) -> None:
        """A wildcard stands for exactly one label, and never for the apex."""
        resolver = await self.resolver(an_app("wild", "*.example.com"))
        route = await ask(resolver, "a.example.com")
        self.assertEqual((route.app.name, route.domain), ("wild", "*.example.com"))
        for host in ("example.com", "a.b.example.com", ".example.com", "com"):
            self.assertEqual(await owner_of(resolver, host), "", host)

    async def test_exact_beats_wildcard(self) -> None:
        """An exact name wins over a wildcard."""
        resolver = await self.resolver(an_app("wild", "*.example.com"), an_app("exact", "a.example.com"))
        self.assertEqual(await owner_of(resolver, "a.example.com"), "exact")
        self.assertEqual(await owner_of(resolver, "b.example.com"), "wild")

    async def test_literal_star(self) -> None:
        """A client cannot ask for a wildcard by its own spelling."""
        resolver = await self.resolver(an_app("wild", "*.example.com"))
        self.assertEqual(await owner_of(resolver, "*.example.com"), "")

    async def test_normalised(self) -> None:
        """Domains are normalised when they are told, so that the host is compared as it stands."""
        resolver = await self.resolver(an_app("a", "BÜCHER.Example."), an_app("b", "My_App.example"))
        self.assertEqual(await owner_of(resolver, "xn--bcher-kva.example"), "a")
        self.assertEqual(await owner_of(resolver, "my_app.example"), "b")

    async def test_many_questions_at_once(self) -> None:
        """Questions that overlap each get their own answer."""
        resolver = await self.resolver(*(an_app(f"app-{n}", f"{n}.example") for n in range(20)))
        questions = [Deferred.fromCoroutine(owner_of(resolver, f"{n}.example")) for n in range(20)]
        self.assertEqual(await gatherResults(questions), [f"app-{n}" for n in range(20)])

    async def test_cancelled(self) -> None:
        """A question may be cancelled; it ends, and the next one is answered."""
        resolver = await self.resolver(an_app("a", "a.example"))
        for host in ("a.example", "unknown.example"):
            question = maybeDeferred(resolver.resolve, RouteQuery(host))
            question.cancel()
            try:
                await question
            except (CancelledError, UnknownHost):
                pass
        self.assertEqual(await owner_of(resolver, "a.example"), "a")
