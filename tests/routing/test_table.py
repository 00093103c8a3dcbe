"""The route table: who claims a host, and how tables follow each other."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ConfigurationError, DomainTaken
from scalingo_proxy.model import App, AppState, TopologyChange
from scalingo_proxy.routing.table import RouteTable, difference, normalised_app


def app(name: str, *domains: str, backend: str = "127.0.0.1:3000") -> App:
    return App(name, domains, (backend,))


def table_of(*apps: App) -> RouteTable:
    return RouteTable.empty("test").changed(TopologyChange(apps))


def owners(table: RouteTable, *hosts: str) -> list[str | None]:
    routes = [table.lookup(host) for host in hosts]
    return [None if route is None else route.app.name for route in routes]


class LookupTests(SynchronousTestCase):
    """Which app a host leads to."""

    def test_exact(self) -> None:
        """A name leads to the app that claims it, and the route says how."""
        hello = app("hello", "hello.example", "www.hello.example")
        route = table_of(hello).lookup("www.hello.example")
        assert route is not None
        self.assertIs(route.app, hello)
        self.assertEqual((route.domain, route.resolver), ("www.hello.example", "test"))

    def test_same_route_object(self) -> None:
        """A route is made once, not at every lookup."""
        table = table_of(app("hello", "hello.example", "*.hello.example"))
        self.assertIs(table.lookup("hello.example"), table.lookup("hello.example"))
        self.assertIs(table.lookup("a.hello.example"), table.lookup("b.hello.example"))

    def test_unknown(self) -> None:
        """A name that nobody claims leads nowhere."""
        table = table_of(app("hello", "hello.example"))
        self.assertEqual(owners(table, "other.example", "example", "", ".", "x.hello.example"), [None] * 5)

    def test_wildcard(self) -> None:
        """A wildcard stands for exactly one label: not the apex, not two labels."""
        table = table_of(app("wild", "*.example.com"))
        self.assertEqual(
            owners(table, "a.example.com", "example.com", "a.b.example.com", ".example.com"),
            ["wild", None, None, None],
        )
        route = table.lookup("a.example.com")
        assert route is not None
        self.assertEqual(route.domain, "*.example.com")

    def test_wildcard_under_one_label(self) -> None:
        """The name under a wildcard may be a single label."""
        table = table_of(app("dev", "*.localhost"))
        self.assertEqual(owners(table, "a.localhost", "localhost"), ["dev", None])

    def test_exact_beats_wildcard(self) -> None:
        """An exact name wins, whichever app came first."""
        for apps in ((app("w", "*.x.de"), app("e", "a.x.de")), (app("e", "a.x.de"), app("w", "*.x.de"))):
            self.assertEqual(owners(table_of(*apps), "a.x.de", "b.x.de"), ["e", "w"])

    def test_literal_star(self) -> None:
        """A host with a star in it matches nothing, not even the wildcard spelt that way."""
        table = table_of(app("wild", "*.example.com"))
        self.assertEqual(owners(table, "*.example.com", "a*.example.com", "*"), [None] * 3)

    def test_address(self) -> None:
        """An app may be asked for by an address; no wildcard reaches into one."""
        table = table_of(app("local", "127.0.0.1", "::1"))
        self.assertEqual(owners(table, "127.0.0.1", "[::1]", "126.0.0.1"), ["local", "local", None])

    def test_normalised_at_load(self) -> None:
        """Domains are normalised when an app comes in, and each is counted once."""
        table = table_of(app("books", "BÜCHER.example.", "xn--bcher-kva.example"))
        self.assertEqual(table.apps["books"].domains, ("xn--bcher-kva.example",))
        self.assertEqual(owners(table, "xn--bcher-kva.example", "bücher.example"), ["books", None])
        self.assertEqual(table.domain_count, 1)

    def test_owner(self) -> None:
        """The owner of a domain is asked for literally."""
        table = table_of(app("wild", "*.x.de"), app("exact", "a.x.de"))
        asked = ("*.x.de", "a.x.de", "b.x.de")
        self.assertEqual([table.owner(domain) for domain in asked], ["wild", "exact", None])


class ChangedTests(SynchronousTestCase):
    """One table after another."""

    def test_add(self) -> None:
        """A new app is found in the new table; the old one stays as it was."""
        old = table_of(app("a", "a.de"))
        new = old.changed(TopologyChange((app("b", "b.de"),)))
        self.assertEqual(owners(new, "a.de", "b.de"), ["a", "b"])
        self.assertEqual((owners(old, "b.de"), list(old.apps), old.domain_count), ([None], ["a"], 1))
        self.assertEqual((list(new.apps), new.domain_count), (["a", "b"], 2))

    def test_remove(self) -> None:
        """A removed app takes its domains with it; an unknown name is no mistake."""
        old = table_of(app("a", "a.de", "*.a.de"), app("b", "b.de"))
        new = old.changed(TopologyChange((), ("a", "nobody")))
        self.assertEqual(owners(new, "a.de", "x.a.de", "b.de"), [None, None, "b"])
        self.assertEqual((list(new.apps), new.domain_count), (["b"], 1))

    def test_update(self) -> None:
        """An app that comes again replaces the one before, domains and all."""
        old = table_of(app("a", "old.de", "both.de"))
        new = old.changed(TopologyChange((app("a", "both.de", "new.de"),)))
        self.assertEqual(owners(new, "old.de", "both.de", "new.de"), [None, "a", "a"])
        route = new.lookup("both.de")
        assert route is not None
        self.assertIs(route.app, new.apps["a"])

    def test_removed_and_updated(self) -> None:
        """An app that goes and comes in one change is there afterwards."""
        a = app("a", "a.de")
        for again in (a, app("a", "b.de")):
            new = table_of(a).changed(TopologyChange((again,), ("a",)))
            self.assertEqual(new.apps["a"], again)
            self.assertEqual(owners(new, again.domains[0]), ["a"])

    def test_nothing_differs(self) -> None:
        """A change that changes nothing gives the same table."""
        table = table_of(app("a", "a.de"), app("b"))
        self.assertIs(table.changed(TopologyChange()), table)
        self.assertIs(table.changed(TopologyChange((app("a", "A.de"), app("b")), ("c",))), table)

    def test_state_differs(self) -> None:
        """Anything that differs in an app makes a new route."""
        stopped = App("a", ("a.de",), state=AppState.STOPPED)
        new = table_of(app("a", "a.de")).changed(TopologyChange((stopped,)))
        route = new.lookup("a.de")
        assert route is not None
        self.assertIs(route.app.state, AppState.STOPPED)

    def test_domain_moves(self) -> None:
        """Domains may move between apps within one change, in a ring even."""
        table = table_of(app("a", "1.x.de"), app("b", "*.y.de"), app("c", "3.x.de"))
        new = table.changed(TopologyChange((app("a", "*.y.de"), app("b", "3.x.de"), app("c", "1.x.de"))))
        self.assertEqual(owners(new, "1.x.de", "z.y.de", "3.x.de"), ["c", "a", "b"])
        self.assertEqual(new.domain_count, 3)

    def test_domain_moves_from_removed(self) -> None:
        """The domain of a removed app is free within the same change."""
        new = table_of(app("a", "a.de")).changed(TopologyChange((app("b", "a.de"),), ("a",)))
        self.assertEqual(owners(new, "a.de"), ["b"])

    def test_moved_between_exact_and_wildcard(self) -> None:
        """A wildcard and its exact namesake are two domains."""
        table = table_of(app("a", "*.x.de")).changed(TopologyChange((app("b", "x.de"),)))
        self.assertEqual(owners(table, "x.de", "y.x.de"), ["b", "a"])
        table = table.changed(TopologyChange((), ("a",)))
        self.assertEqual(owners(table, "x.de", "y.x.de"), ["b", None])

    def test_labels(self) -> None:
        """Routes may name another resolver; a new label alone makes new routes."""
        a = app("a", "a.de")
        table = RouteTable.empty("both").changed(TopologyChange((a, app("b", "b.de"))), {"a": "store"})
        found = [table.lookup(host) for host in ("a.de", "b.de")]
        self.assertEqual([route and route.resolver for route in found], ["store", "both"])
        self.assertIs(table.changed(TopologyChange((a,)), {"a": "store"}), table)
        relabelled = table.changed(TopologyChange((a,)), {"a": "file"})
        route = relabelled.lookup("a.de")
        assert route is not None
        self.assertEqual(route.resolver, "file")
        self.assertFalse(relabelled.difference(table))


class RefusedTests(SynchronousTestCase):
    """Changes that are refused, and leave everything as it was."""

    def refused(self, table: RouteTable, *apps: App) -> DomainTaken:
        before = dict(table.apps)
        hosts = [domain for one in (*apps, *before.values()) for domain in one.domains]
        found = [table.lookup(host) for host in hosts]
        error = self.assertRaises(DomainTaken, table.changed, TopologyChange(apps))
        self.assertEqual(dict(table.apps), before)
        self.assertEqual([table.lookup(host) for host in hosts], found)
        return error

    def test_taken(self) -> None:
        """A domain of another app is refused, naming the owner."""
        error = self.refused(table_of(app("a", "a.de")), app("b", "b.de", "a.de"))
        self.assertEqual((error.domain, error.owner), ("a.de", "a"))

    def test_wildcard_taken(self) -> None:
        """So is its wildcard."""
        error = self.refused(table_of(app("a", "*.a.de")), app("b", "*.A.de"))
        self.assertEqual((error.domain, error.owner), ("*.a.de", "a"))

    def test_twice_in_one_change(self) -> None:
        """Two apps of one change cannot claim the same domain."""
        error = self.refused(table_of(), app("a", "x.de"), app("b", "X.de"))
        self.assertEqual((error.domain, error.owner), ("x.de", "a"))

    def test_still_claimed_by_updated_app(self) -> None:
        """An app of the change that keeps its domain keeps it, changed or not."""
        table = table_of(app("a", "x.de"))
        for a in (app("a", "x.de"), app("a", "x.de", backend="127.0.0.1:4000")):
            error = self.refused(table, a, app("b", "x.de"))
            self.assertEqual(error.domain, "x.de")

    def test_as_a_whole(self) -> None:
        """One bad app refuses the good ones with it."""
        table = table_of(app("a", "a.de"))
        self.refused(table, app("good", "good.de"), app("bad", "a.de"))
        self.assertEqual(owners(table, "good.de"), [None])

    def test_every_bad_domain(self) -> None:
        """Domains that are none are all named at once, with their places."""
        bad = TopologyChange((app("a", "ok.de", "not ok"), app("b", "*")))
        error = self.assertRaises(ConfigurationError, table_of().changed, bad)
        self.assertEqual([mistake.path for mistake in error.mistakes], ["a.domains[1]", "b.domains[0]"])

    def test_app_twice(self) -> None:
        """One change describes an app once."""
        change = TopologyChange((app("a", "a.de"), app("a", "b.de")))
        error = self.assertRaises(ConfigurationError, table_of().changed, change)
        self.assertIn("described twice", str(error))


class DifferenceTests(SynchronousTestCase):
    """What turns one set of apps into another."""

    def test_difference(self) -> None:
        """New and differing apps are updated, missing ones removed, each in order of name."""
        kept, old, new = app("k", "k.de"), app("c", "c.de"), app("c", "d.de")
        before = {"k": kept, "z": app("z"), "y": app("y"), "c": old}
        after = {"n": app("n"), "k": kept, "c": new}
        self.assertEqual(difference(before, after), TopologyChange((new, app("n")), ("y", "z")))

    def test_none(self) -> None:
        """Equal apps make no difference."""
        self.assertFalse(difference({"a": app("a")}, {"a": app("a")}))

    def test_of_tables(self) -> None:
        """Two tables tell it alike, related or not."""
        old = table_of(app("a", "a.de"), app("b", "b.de"))
        change = TopologyChange((app("c", "b.de"),), ("b",))
        new = old.changed(change)
        self.assertEqual(new.difference(old), change)
        self.assertEqual(new.difference(table_of(app("a", "a.de"), app("b", "b.de"))), change)

    def test_normalised_app(self) -> None:
        """An app that is normal is given back itself."""
        normal = app("a", "a.de", "*.a.de")
        self.assertIs(normalised_app(normal), normal)
        self.assertEqual(normalised_app(app("a", "A.de", "a.de", "*.A.DE")), normal)


NAMES = st.sampled_from("abcde")
DOMAINS = st.lists(st.sampled_from(["x.de", "y.de", "*.x.de", "*.y.de", "a.x.de"]), max_size=3)
APPS = st.lists(st.builds(lambda name, domains: App(name, domains), NAMES, DOMAINS), max_size=4)
HOSTS = ["x.de", "y.de", "a.x.de", "b.x.de", "b.y.de", "c.b.x.de"]


class HistoryTests(SynchronousTestCase):
    """Long histories of changes."""

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(APPS, st.lists(NAMES, max_size=2)), max_size=8))
    def test_any_history(self, history: list[tuple[list[App], list[str]]]) -> None:
        """After any history the table is what it would be if built at once from its apps."""
        table = table_of()
        for updated, removed in history:
            change = TopologyChange(tuple(updated), tuple(removed))
            try:
                new = table.changed(change)
            except (DomainTaken, ConfigurationError):
                continue
            self.assertEqual(table.changed(new.difference(table)).apps, new.apps)
            table = new
        rebuilt = table_of(*table.apps.values())
        self.assertEqual(owners(table, *HOSTS), owners(rebuilt, *HOSTS))
        self.assertEqual(table.domain_count, rebuilt.domain_count)

    def test_many_apps(self) -> None:
        """Thousands of apps are each found, and a change among them touches few shards."""
        count = 3000
        table = table_of(*(app(f"app-{n}", f"app-{n}.de", f"*.app-{n}.de") for n in range(count)))
        for n in random.Random(1).sample(range(count), 200):
            self.assertEqual(owners(table, f"app-{n}.de", f"x.app-{n}.de"), [f"app-{n}"] * 2)
        new = table.changed(TopologyChange((app("app-7", "new.de"),)))
        for before, after in ((table._exact, new._exact), (table._wildcards, new._wildcards)):
            copied = sum(a is not b for a, b in zip(before.shards, after.shards, strict=True))
            self.assertLessEqual(copied, 2)
