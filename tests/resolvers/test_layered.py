"""Several feeds seen as one.  The contract is tested in tests/contracts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from scalingo_proxy.errors import ConfigurationError, DomainTaken, ResolverUnavailable, UnknownHost
from scalingo_proxy.interfaces import IRouteFeed
from scalingo_proxy.model import App, Route, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.config_file import ConfigFileResolver
from scalingo_proxy.resolvers.layered import Conflict, LayeredResolver
from scalingo_proxy.resolvers.loading import Loading
from scalingo_proxy.resolvers.memory import MemoryResolver


def app(name: str, *domains: str, port: int = 3000) -> App:
    return App(name, domains, (f"127.0.0.1:{port}",))


@implementer(IRouteFeed)
class UnguardedFeed:
    """A feed that asks nobody, as a remote one cannot."""

    def __init__(self, name: str, *apps: App) -> None:
        self.name = name
        self._memory = MemoryResolver(apps)
        self.apps, self.watch, self.apply = self._memory.apps, self._memory.watch, self._memory.apply


class LayeredCase(SynchronousTestCase):
    """A store over a file."""

    def setUp(self) -> None:
        self.store = MemoryResolver(name="store")
        self.file = ConfigFileResolver()
        self.layered = LayeredResolver([self.store, self.file])
        self.told: list[TopologyChange] = []
        self.layered.watch(self.told.append)

    def found(self, host: str) -> tuple[str, str] | None:
        """The app that serves *host* and the layer it is from."""
        at_once = self.layered.route_at_once(host)
        try:
            route = self.layered.resolve(RouteQuery(host))
        except UnknownHost:
            self.assertIsNone(at_once)
            return None
        assert isinstance(route, Route)
        self.assertIs(at_once, route)
        return route.app.name, route.resolver


class MergedTests(LayeredCase):
    """By app name the first layer wins."""

    def test_both(self) -> None:
        """Apps of either layer are served, and the route names the layer."""
        self.store.set_app(app("s", "s.example"))
        self.file.replace([app("f", "f.example")])
        self.assertEqual(self.found("s.example"), ("s", "store"))
        self.assertEqual(self.found("f.example"), ("f", "file"))
        self.assertEqual(list(self.layered.apps()), ["f", "s"])

    def test_upper_hides_lower(self) -> None:
        """An app of the upper layer stands over its namesake, domains and all."""
        self.file.replace([app("a", "file.example")])
        self.store.set_app(app("a", "store.example"))
        self.assertEqual(self.found("store.example"), ("a", "store"))
        self.assertIsNone(self.found("file.example"))

    def test_lower_comes_back(self) -> None:
        """Deleted in the upper layer, the lower one's app is served again; it is told as an update."""
        lower = app("a", "file.example")
        self.file.replace([lower])
        self.store.set_app(app("a", "store.example"))
        self.told.clear()
        self.store.remove_app("a")
        self.assertEqual(self.found("file.example"), ("a", "file"))
        self.assertIsNone(self.found("store.example"))
        self.assertEqual(self.told, [TopologyChange((lower,))])

    def test_hidden_changes(self) -> None:
        """What changes in a hidden app is not told, and is there when it is uncovered."""
        self.store.set_app(app("a", "store.example"))
        self.told.clear()
        self.file.replace([app("a", "one.example")])
        self.file.replace([app("a", "two.example")])
        self.assertEqual(self.told, [])
        self.store.remove_app("a")
        self.assertEqual(self.found("two.example"), ("a", "file"))

    def test_equal_in_both(self) -> None:
        """An app that both layers have alike is no difference, but its route names the upper one."""
        self.file.replace([app("a", "a.example")])
        self.told.clear()
        self.store.set_app(app("a", "a.example"))
        self.assertEqual(self.found("a.example"), ("a", "store"))
        self.store.remove_app("a")
        self.assertEqual(self.found("a.example"), ("a", "file"))
        self.assertEqual(self.told, [])

    def test_removed_from_both(self) -> None:
        """An app that goes from its last layer is gone."""
        self.file.replace([app("a", "a.example")])
        self.store.set_app(app("a", "a.example"))
        self.file.replace([])
        self.assertEqual(self.found("a.example"), ("a", "store"))
        self.store.remove_app("a")
        self.assertIsNone(self.found("a.example"))
        self.assertEqual(self.told[-1], TopologyChange((), ("a",)))

    def test_layers_that_had_apps(self) -> None:
        """What the layers knew before they were put together is served."""
        layered = LayeredResolver(
            [MemoryResolver([app("s", "s.example")]), UnguardedFeed("f", app("f", "f.example"))]
        )
        self.assertEqual(list(layered.apps()), ["f", "s"])

    def test_hidden_app_frees_its_domains(self) -> None:
        """The domains of a hidden app may be used by another one."""
        self.file.replace([app("a", "file.example")])
        self.store.set_app(app("a", "store.example"))
        self.store.set_app(app("b", "file.example"))
        self.assertEqual(self.found("file.example"), ("b", "store"))

    def test_domains_move_between_layers(self) -> None:
        """One change of a layer may hide an app and take its domain for another one."""
        self.file.replace([app("a", "x.example")])
        self.store.apply(TopologyChange((app("a", "y.example"), app("b", "x.example"))))
        self.assertEqual(self.found("x.example"), ("b", "store"))
        self.assertEqual(self.found("y.example"), ("a", "store"))


class RefusedTests(LayeredCase):
    """A domain has one owner across the layers."""

    def assert_nothing_changed(self) -> None:
        self.assertEqual(self.told, [])
        self.assertEqual(self.layered.conflicts, ())

    def test_upper_takes_from_lower(self) -> None:
        """The upper layer cannot take the domain of a lower app with another name."""
        self.file.replace([app("f", "x.example")])
        self.told.clear()
        error = self.assertRaises(DomainTaken, self.store.set_app, app("s", "x.example"))
        self.assertEqual((error.domain, error.owner), ("x.example", "f"))
        self.assertEqual(dict(self.store.apps()), {})
        self.assert_nothing_changed()

    def test_lower_takes_from_upper(self) -> None:
        """A file that claims the domain of an upper app is refused as a whole."""
        self.store.set_app(app("s", "x.example"))
        self.told.clear()
        apps = [app("good", "good.example"), app("f", "x.example")]
        error = self.assertRaises(DomainTaken, self.file.replace, apps)
        self.assertEqual((error.domain, error.owner), ("x.example", "s"))
        self.assertIsNone(self.found("good.example"))
        self.assert_nothing_changed()

    def test_uncovers_conflict(self) -> None:
        """A deletion that would uncover a lower app without its domain is refused."""
        self.file.replace([app("a", "x.example")])
        self.store.set_app(app("a", "y.example"))
        self.store.set_app(app("b", "x.example"))
        self.told.clear()
        error = self.assertRaises(DomainTaken, self.store.remove_app, "a")
        self.assertEqual((error.domain, error.owner), ("x.example", "b"))
        self.assertEqual(self.found("y.example"), ("a", "store"))
        self.assert_nothing_changed()

    def test_check(self) -> None:
        """Whether a change is possible can be asked without making it."""
        self.file.replace([app("f", "x.example")])
        self.told.clear()
        bad, good = TopologyChange((app("s", "x.example"),)), TopologyChange((app("s", "s.example"),))
        self.assertRaises(DomainTaken, self.layered.check, bad, self.store)
        self.layered.check(good, self.store)
        self.layered.check(TopologyChange((app("s", "x.example"),), ("f",)), self.file)
        self.assertEqual(list(self.layered.apps()), ["f"])
        self.assert_nothing_changed()

    def test_check_hidden(self) -> None:
        """A hidden app may claim what it likes: it is not served."""
        self.store.set_app(app("a", "a.example"))
        self.store.set_app(app("s", "x.example"))
        self.file.replace([app("a", "x.example")])
        self.assertEqual(self.found("x.example"), ("s", "store"))

    def test_bad_domain(self) -> None:
        """A domain that is none is refused by the layer itself."""
        self.assertRaises(ConfigurationError, self.store.set_app, app("s", "not a domain"))
        self.assert_nothing_changed()


class ConflictTests(SynchronousTestCase):
    """Layers that changed without asking."""

    def setUp(self) -> None:
        self.upper = UnguardedFeed("upper")
        self.lower = UnguardedFeed(
            "lower", app("kept", "kept.example"), app("low", "x.example", "low.example")
        )
        self.layered = LayeredResolver([self.upper, self.lower])
        self.told: list[TopologyChange] = []
        self.layered.watch(self.told.append)

    def owners(self, *hosts: str) -> list[str | None]:
        routes = [self.layered.table.lookup(host) for host in hosts]
        return [None if route is None else route.app.name for route in routes]

    def conflict(self) -> None:
        self.upper.apply(TopologyChange((app("up", "x.example"),)))

    def test_upper_wins(self) -> None:
        """The lower app is left out as a whole, and said so; everything else is served."""
        self.conflict()
        self.assertEqual(self.owners("x.example", "low.example", "kept.example"), ["up", None, "kept"])
        self.assertEqual(self.layered.conflicts, (Conflict("low", "lower", "x.example", "up"),))
        self.assertIn("'low' of layer 'lower' is left out", str(self.layered.conflicts[0]))
        self.assertEqual(self.told, [TopologyChange((app("up", "x.example"),), ("low",))])

    def test_comes_back(self) -> None:
        """It is served again as soon as it fits."""
        self.conflict()
        self.upper.apply(TopologyChange((), ("up",)))
        self.assertEqual(self.owners("x.example", "low.example"), ["low", "low"])
        self.assertEqual(self.layered.conflicts, ())
        self.assertEqual(self.told[-1], TopologyChange((app("low", "x.example", "low.example"),), ("up",)))

    def test_changed_to_fit(self) -> None:
        """Or when it gives the domain up itself."""
        self.conflict()
        self.lower.apply(TopologyChange((app("low", "low.example"),)))
        self.assertEqual(self.owners("x.example", "low.example"), ["up", "low"])
        self.assertEqual(self.layered.conflicts, ())

    def test_at_the_start(self) -> None:
        """Layers that never fitted are served as far as they do."""
        self.conflict()
        layered = LayeredResolver([self.upper, self.lower])
        self.assertEqual(list(layered.apps()), ["kept", "up"])
        self.assertEqual(len(layered.conflicts), 1)

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.lists(st.tuples(st.sampled_from("abc"), st.sets(st.sampled_from("xyz"))), max_size=2),
                st.lists(st.sampled_from("abc"), max_size=2),
            ),
            max_size=10,
        )
    )
    def test_any_history(self, history: list[tuple[int, list[tuple[str, set[str]]], list[str]]]) -> None:
        """After any history the answers are those of layers put together afresh."""
        layers = [UnguardedFeed(str(number)) for number in range(3)]
        layered = LayeredResolver(layers)
        followed: dict[str, App] = {}

        def follow(change: TopologyChange) -> None:
            for name in change.removed:
                del followed[name]
            followed.update((one.name, one) for one in change.updated)

        layered.watch(follow)
        for number, updated, removed in history:
            apps = {
                name: app(name, *(f"{label}.example" for label in sorted(labels))) for name, labels in updated
            }
            try:
                layers[number].apply(TopologyChange(tuple(apps.values()), tuple(removed)))
            except DomainTaken:
                continue
            fresh = LayeredResolver(layers)
            self.assertEqual(dict(layered.apps()), dict(fresh.apps()))
            self.assertEqual(layered.conflicts, fresh.conflicts)
            self.assertEqual(followed, dict(layered.apps()))
            for label in "xyz":
                host = f"{label}.example"
                self.assertEqual(layered.table.lookup(host), fresh.table.lookup(host))


class SlowLayer(MemoryResolver):
    """A layer that has not loaded yet."""

    def __init__(self, *apps: App) -> None:
        super().__init__(apps, "slow")
        self.loading = Loading()

    @property
    def is_loaded(self) -> bool:
        return self.loading.is_done

    def when_loaded(self) -> Deferred[None]:
        return self.loading.wait()


class LoadingTests(SynchronousTestCase):
    """Queries before every layer has loaded."""

    def setUp(self) -> None:
        self.slow = [SlowLayer(), SlowLayer()]
        self.layered = LayeredResolver([*self.slow, MemoryResolver([app("a", "a.example")])])

    def ask(self, host: str = "a.example") -> Deferred[Route]:
        answer = self.layered.resolve(RouteQuery(host))
        assert isinstance(answer, Deferred)
        return answer

    def test_waits_for_all(self) -> None:
        """Nothing is answered before all have loaded, because the upper ones might hide it."""
        answer = self.ask()
        self.slow[1].loading.finish()
        self.assertNoResult(answer)
        self.slow[0].set_app(app("a", "other.example"))
        self.slow[0].loading.finish()
        self.failureResultOf(answer, UnknownHost)
        route = self.layered.resolve(RouteQuery("other.example"))
        assert isinstance(route, Route)
        self.assertEqual(route.resolver, "slow")

    def test_answers_at_once_later(self) -> None:
        """Once all have loaded, answers come at once."""
        answer = self.ask()
        self.assertIsNone(self.layered.route_at_once("a.example"))
        for layer in self.slow:
            layer.loading.finish()
        self.assertEqual(self.successResultOf(answer).app.name, "a")
        route = self.layered.resolve(RouteQuery("a.example"))
        self.assertIsInstance(route, Route)
        self.assertIs(self.layered.route_at_once("a.example"), route)

    def test_failure(self) -> None:
        """A layer that cannot load makes routes unavailable, until it is tried again."""
        answer = self.ask()
        self.slow[0].loading.abandon(OSError("disk"))
        self.failureResultOf(answer, ResolverUnavailable)
        self.slow[0].loading.begin()
        answer = self.ask()
        for layer in self.slow:
            layer.loading.finish()
        self.successResultOf(answer)
