"""Tests for :mod:`scalingo_proxy.resolvers.guarded` and what it is made of."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from scalingo_proxy.errors import DomainTaken, ResolverUnavailable, UnknownHost
from scalingo_proxy.interfaces import IResolver, IRouteFeed
from scalingo_proxy.model import App, Route, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.guarded import GuardedResolver
from scalingo_proxy.resolvers.layered import LayeredResolver
from scalingo_proxy.resolvers.memory import MemoryResolver
from scalingo_proxy.resolvers.saved_topology import SavedTopology
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.world import World
from tests.protocols.worlds import get

APPS = tuple(App(f"app-{n}", (f"{n}.test",), (f"10.0.0.1:{3000 + n}",)) for n in range(100))
NAMES = tuple(app.name for app in APPS)


@implementer(IRouteFeed, IResolver)
class SickFeed:
    """A feed whose health is up to its test."""

    name = "sick"

    def __init__(self, apps: tuple[App, ...] = ()) -> None:
        self.now: Any = {app.name: app for app in apps}
        self.answer: Any = None
        self.tell: Callable[[Any], None] = lambda change: None

    def apps(self) -> Mapping[str, App]:
        if isinstance(self.now, Exception):
            raise self.now
        return self.now  # type: ignore[no-any-return]

    def watch(self, callback: Callable[[TopologyChange], None]) -> Callable[[], None]:
        self.tell = callback
        return lambda: None

    def resolve(self, query: RouteQuery) -> Any:
        if self.answer is None:
            raise UnknownHost
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def say(self, *updated: App, removed: tuple[str, ...] = ()) -> None:
        """Tell of a change, and be like that."""
        for name in removed:
            self.now.pop(name, None)
        self.now.update((app.name, app) for app in updated)
        self.tell(TopologyChange(updated, removed))


class GuardedCase(SynchronousTestCase):
    """A guard around a feed of 100 apps, and what the log hears."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.feed = SickFeed(APPS)
        self.guard = self.guarded()
        self.alarms: list[str] = []
        self.complaints: list[str] = []
        globalLogPublisher.addObserver(self._hear)
        self.addCleanup(globalLogPublisher.removeObserver, self._hear)

    def guarded(self, **options: Any) -> GuardedResolver:
        return GuardedResolver(
            self.feed, self.clock, wall_clock=lambda: 1000.0 + self.clock.seconds(), **options
        )

    def _hear(self, event: Any) -> None:
        kept = {LogLevel.critical: self.alarms, LogLevel.warn: self.complaints}.get(event["log_level"])
        if kept is not None:
            kept.append(event["log_format"].format(**event))

    def owner(self, host: str) -> str:
        try:
            route = self.guard.resolve(RouteQuery(host))
        except UnknownHost:
            return ""
        assert isinstance(route, Route)
        return route.app.name


class HeldTests(GuardedCase):
    """An update that would take the platform away."""

    def test_held_as_a_whole(self) -> None:
        """Nothing of it happens, its good parts included; one alarm says what and what to do."""
        told: list[TopologyChange] = []
        self.guard.watch(told.append)
        new, changed = App("new", ("new.test",)), App("app-0", ("0.test", "more.test"))
        self.feed.say(new, changed, removed=NAMES[40:])
        self.assertEqual((told, dict(self.guard.apps())), ([], {app.name: app for app in APPS}))
        self.assertEqual(
            [self.owner(host) for host in ("99.test", "new.test", "more.test")], ["app-99", "", ""]
        )
        held = self.guard.held
        assert held is not None
        self.assertEqual((held.source, held.since, len(held.loss.apps)), ("sick", 1000.0, 61))
        (alarm,) = self.alarms
        self.assertIn("would remove 61 of 100 apps and 61 of 100 backends", alarm)
        self.assertIn("scalingo-proxy topology confirm", alarm)
        self.assertEqual(self.guard.results, {"applied": 1, "held": 1, "garbage": 0, "refused": 0})

    def test_new_host_while_held(self) -> None:
        """The feed's own answer does not let in what is held back."""
        self.feed.say(App("new", ("new.test",)), removed=NAMES[40:])
        self.feed.answer = Route(App("new", ("new.test",)), "new.test")
        self.assertEqual(self.owner("new.test"), "")

    def test_later_good_update(self) -> None:
        """It takes the place of what is held back, with all that it says."""
        self.feed.say(removed=NAMES[40:])
        self.feed.say(*APPS[40:90], App("new", ("new.test",)))
        self.assertIsNone(self.guard.held)
        self.assertEqual(
            [self.owner(host) for host in ("50.test", "95.test", "new.test")], ["app-50", "", "new"]
        )

    def test_repeated(self) -> None:
        """More of the same is counted, and no second alarm."""
        self.feed.say(removed=NAMES[40:])
        self.feed.say(removed=NAMES[30:])
        held = self.guard.held
        assert held is not None
        self.assertEqual((held.repeated, len(held.loss.apps), len(self.alarms)), (1, 70, 1))

    def test_confirmed(self) -> None:
        """Then it was meant, and what it leaves is the measure of what comes."""
        self.feed.say(App("new", ("new.test",)), removed=NAMES[40:])
        self.assertIsNotNone(self.guard.confirm())
        self.assertEqual((len(self.guard.apps()), self.owner("new.test")), (41, "new"))
        self.assertIsNone(self.guard.confirm())
        self.feed.say(removed=NAMES[25:40])
        self.assertEqual(len(self.guard.apps()), 26)

    def test_discarded(self) -> None:
        """It is forgotten; what comes then counts from what is served."""
        self.feed.say(removed=NAMES[40:])
        self.assertIsNotNone(self.guard.discard())
        self.assertEqual((self.guard.held, len(self.guard.apps())), (None, 100))
        self.feed.say(App("new", ("new.test",)), removed=("app-99",))
        self.assertEqual((len(self.guard.apps()), self.owner("new.test")), (100, "new"))

    def test_confirmed_by_time(self) -> None:
        """If so configured, what stands long enough was meant."""
        self.guard = self.guarded(confirm_after=30.0)
        self.feed.say(removed=NAMES[40:])
        held = self.guard.held
        assert held is not None
        self.assertEqual(held.confirmed_at, 1030.0)
        self.clock.advance(29)
        self.assertEqual(len(self.guard.apps()), 100)
        self.clock.advance(1)
        self.assertEqual((len(self.guard.apps()), self.guard.held), (40, None))

    def test_good_again_before_the_time(self) -> None:
        """Then nothing happens when the time comes."""
        self.guard = self.guarded(confirm_after=30.0)
        self.feed.say(removed=NAMES[40:])
        self.feed.say(*APPS[40:])
        self.clock.advance(60)
        self.assertEqual((len(self.guard.apps()), self.clock.getDelayedCalls()), (100, []))

    def test_small_fleet(self) -> None:
        """Below the floor everything is ordinary, except that nothing is left."""
        self.feed = SickFeed(APPS[:8])
        self.guard = self.guarded()
        self.feed.say(removed=NAMES[1:8])
        self.assertEqual(len(self.guard.apps()), 1)
        self.feed.say(*APPS[:8])
        self.feed.say(removed=NAMES[:8])
        self.assertEqual(len(self.guard.apps()), 8)
        self.guard = self.guarded(holds_empty=False)
        self.feed.now = {app.name: app for app in APPS[:8]}
        self.feed.say(removed=NAMES[:8])
        self.assertEqual(len(self.guard.apps()), 0)

    def test_one_app(self) -> None:
        """One app goes, or loses its backends: whatever its size, that is ordinary."""
        self.feed = SickFeed((App("big", ("big.test",), [f"10.0.0.2:{n}" for n in range(1, 200)]), *APPS[:3]))
        self.guard = self.guarded()
        self.feed.say(App("big", ("big.test",)))
        self.assertEqual(self.guard.apps()["big"].backends, ())
        self.feed.say(removed=("big",))
        self.assertEqual((self.owner("big.test"), self.guard.held), ("", None))

    def test_unhealthy_now_and_then(self) -> None:
        """A feed that changes its mind all the time gives one alarm in five minutes."""
        for _ in range(50):
            self.feed.say(removed=NAMES[40:])
            self.clock.advance(1)
            self.feed.say(*APPS[40:])
            self.clock.advance(1)
        self.assertEqual(len(self.alarms), 1)
        self.clock.advance(300)
        self.feed.say(removed=NAMES[40:])
        self.assertEqual(len(self.alarms), 2)

    def test_upper_layers_object(self) -> None:
        """A domain that another source has refuses the change, now and at a confirmation."""
        other = MemoryResolver([App("other", ("taken.test",))], "other")
        layered = LayeredResolver([other, self.guard])
        self.feed.say(App("new", ("taken.test",)))
        self.assertEqual((self.guard.results["refused"], len(layered.apps())), (1, 101))
        self.feed.say(removed=NAMES[40:])
        self.assertRaises(DomainTaken, self.guard.confirm)
        self.assertIsNotNone(self.guard.held)


class GarbageTests(GuardedCase):
    """A feed that talks nonsense, or fails."""

    def test_no_change(self) -> None:
        """Nothing of it counts; one complaint until it is well again."""
        for nonsense in (
            None,
            {"apps": []},
            TopologyChange(({"name": "x"},), ()),  # type: ignore[arg-type]
            TopologyChange((), (7,)),  # type: ignore[arg-type]
            TopologyChange((App("bad", ("not a domain",)),)),
            TopologyChange((App("bad", (7,)),)),  # type: ignore[arg-type]
            TopologyChange((App("bad", ("0.test",)),)),
        ):
            self.feed.now = ValueError("no apps today")
            self.feed.tell(nonsense)
            self.assertEqual(len(self.guard.apps()), 100, nonsense)
        self.assertEqual((len(self.complaints), self.alarms), (1, []))
        self.assertGreater(self.guard.results["garbage"], 6)
        self.feed.now = {app.name: app for app in APPS}
        self.feed.say(App("new", ("new.test",)))
        self.assertEqual((len(self.guard.apps()), self.owner("new.test")), (101, "new"))

    def test_after_garbage_the_whole_counts(self) -> None:
        """What was missed meanwhile is made up for with the next good word."""
        self.feed.now.pop("app-7")
        self.feed.tell("?")
        self.feed.say(App("new", ("new.test",)))
        self.assertEqual([self.owner(host) for host in ("7.test", "new.test")], ["", "new"])

    def test_from_the_beginning(self) -> None:
        """Whoever asks before there is a topology is told that nobody can tell, until one comes."""
        self.feed = SickFeed()
        self.feed.now = ValueError("not today")
        self.guard = self.guarded()
        asking = self.guard.resolve(RouteQuery("0.test"))
        assert isinstance(asking, Deferred)
        self.failureResultOf(asking, ResolverUnavailable)
        self.feed.now = {}
        self.feed.say(*APPS)
        self.assertEqual(self.owner("0.test"), "app-0")

    def test_lookup_fails(self) -> None:
        """Hosts of the table never notice; of others, nobody can tell."""
        for answer in (RuntimeError("x"), ResolverUnavailable(), 7, fail(ValueError())):
            self.feed.answer = answer
            self.assertEqual(self.owner("5.test"), "app-5")
            try:
                asked = self.guard.resolve(RouteQuery("elsewhere.test"))
            except ResolverUnavailable:
                continue
            assert isinstance(asked, Deferred)
            self.failureResultOf(asked, ResolverUnavailable)


class LookupTests(SynchronousTestCase):
    """A resolver that tells of nothing and is asked each time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.feed = SickFeed()
        self.route = Route(APPS[0], "0.test", "sick")

        @implementer(IResolver)
        class Lookup:
            name = "lookup"
            resolve = self.feed.resolve

        self.guard = GuardedResolver(Lookup(), self.clock)

    def ask(self) -> Any:
        return self.guard.resolve(RouteQuery("0.test"))

    def test_last_answer(self) -> None:
        """It is given again when the resolver fails, answers nonsense, or is late."""
        self.feed.answer = self.route
        self.assertIs(self.ask(), self.route)
        for answer in (RuntimeError("x"), ResolverUnavailable(), "nonsense"):
            self.feed.answer = answer
            self.assertIs(self.ask(), self.route)
        self.feed.answer = late = Deferred()
        asked = self.ask()
        self.clock.advance(0.9)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        self.assertIs(self.successResultOf(asked), self.route)
        self.assertTrue(late.called)
        self.feed.answer = fail(ValueError("broken"))
        self.assertIs(self.successResultOf(self.ask()), self.route)

    def test_unknown_is_an_answer(self) -> None:
        """A host that nobody claims any more is forgotten."""
        self.feed.answer = self.route
        self.ask()
        self.feed.answer = UnknownHost()
        self.assertRaises(UnknownHost, self.ask)
        self.feed.answer = RuntimeError("x")
        self.assertRaises(ResolverUnavailable, self.ask)

    def test_late_unknown(self) -> None:
        """Also when it comes later; so does the cancellation of a question."""
        self.feed.answer = fail(UnknownHost())
        self.failureResultOf(self.ask(), UnknownHost)
        self.feed.answer = Deferred()
        asked = self.ask()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SavedTests(TestCase):
    """What survives a restart."""

    timeout = 30

    async def guard(self, feed: SickFeed, path: str) -> GuardedResolver:
        guard = GuardedResolver(feed, reactor, saved=SavedTopology(path, reactor))
        self.addCleanup(guard.stop)
        await guard.start()
        return guard

    async def saved(self, *apps: App) -> str:
        path = self.mktemp()
        guard = await self.guard(SickFeed(apps), path)
        await guard.stop()
        return path

    async def test_feed_down(self) -> None:
        """The saved state is served, with its age, and told to whoever watches."""
        path = await self.saved(*APPS)
        feed = SickFeed()
        feed.now = ConnectionError("down")
        guard = GuardedResolver(feed, reactor, saved=SavedTopology(path, reactor))
        told: list[TopologyChange] = []
        guard.watch(told.append)
        self.assertFalse(guard.is_loaded)
        await guard.start()
        self.assertTrue(guard.is_loaded)
        self.assertEqual((dict(guard.apps()), len(told)), ({app.name: app for app in APPS}, 1))
        self.assertEqual(guard.synced_at, json.loads(Path(path).read_text())["synced_at"])
        feed.now = {app.name: app for app in APPS[:60]}
        feed.tell(TopologyChange())
        self.assertEqual(len(guard.apps()), 60)
        await guard.stop()

    async def test_half_an_answer_at_the_start(self) -> None:
        """It is judged by what was saved."""
        guard = await self.guard(SickFeed(APPS[:30]), await self.saved(*APPS))
        self.assertEqual((len(guard.apps()), guard.held is None), (100, False))

    async def test_nothing_at_the_start(self) -> None:
        """A feed that has not begun to answer is no reason for an alarm."""
        guard = await self.guard(SickFeed(), await self.saved(*APPS))
        self.assertEqual((len(guard.apps()), guard.held), (100, None))

    async def test_file(self) -> None:
        """Its owner's alone, replaced as a whole, and no leftover beside it."""
        path = await self.saved(*APPS)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        feed = SickFeed(APPS)
        guard = await self.guard(feed, path)
        for number in range(5):
            feed.say(App(f"new-{number}", (f"new-{number}.test",)))
        await guard.stop()
        names = [record["name"] for record in json.loads(Path(path).read_text())["apps"]]
        self.assertEqual(len(names), 105)
        folder, name = os.path.split(os.path.abspath(path))
        self.assertEqual([each for each in os.listdir(folder) if name in each], [name])

    async def test_what_is_held_is_not_saved(self) -> None:
        """A restart while something is held back serves what was served."""
        path = await self.saved(*APPS)
        feed = SickFeed(APPS)
        guard = await self.guard(feed, path)
        feed.say(removed=NAMES[40:])
        await guard.stop()
        down = SickFeed()
        self.assertEqual(len((await self.guard(down, path)).apps()), 100)

    async def test_left_by_a_crash(self) -> None:
        """A file that was never finished is in nobody's way."""
        path = await self.saved(*APPS[:50])
        folder, name = os.path.split(os.path.abspath(path))
        (Path(folder) / f".{name}.unfinished").write_text("{")
        guard = await self.guard(SickFeed(APPS), path)
        await guard.stop()
        self.assertEqual(len(json.loads(Path(path).read_text())["apps"]), 100)
        self.assertEqual([each for each in os.listdir(folder) if name in each], [name])

    async def test_damaged(self) -> None:
        """It is told to the log, and as good as none."""
        path = self.mktemp()
        Path(path).write_text('{"format": "something else"}')
        self.assertEqual(len((await self.guard(SickFeed(APPS), path)).apps()), 100)

    async def test_no_place(self) -> None:
        """A disk that cannot be written costs the next restart, and nothing now."""
        guard = await self.guard(SickFeed(APPS), self.mktemp() + "/there/is/no/such/folder")
        self.assertEqual(len(guard.apps()), 100)
        await guard.stop()


class UnderLoadTests(SynchronousTestCase):
    """Minutes of a sick feed, with clients asking all the time."""

    def test_no_request_fails(self) -> None:
        """Empty, half, garbage and errors in turn: every request is answered, and one alarm given."""
        feed = SickFeed()
        clock = Clock()
        world = World(seed=5, resolver=GuardedResolver(feed, clock))
        alarms: list[Any] = []

        def hear(event: Any) -> None:
            if event["log_level"] is LogLevel.critical:
                alarms.append(event)

        globalLogPublisher.addObserver(hear)
        self.addCleanup(globalLogPublisher.removeObserver, hear)
        backends = [world.backend(f"b{n}").answer(replies.fixed(b"fine")) for n in range(40)]
        apps = [App(f"app-{n}", (f"{n}.test",), (backends[n].address,)) for n in range(40)]
        feed.say(*apps)
        world.resolver.watch(lambda change: self.fail(f"{change} came through"))
        for minute in range(5):
            for step, sick in enumerate(
                (
                    lambda: feed.say(removed=tuple(app.name for app in apps)),
                    lambda: feed.say(*apps[:15]),
                    lambda: feed.tell({"garbage": True}),
                    lambda: setattr(feed, "now", OSError("down")),
                    lambda: feed.tell(TopologyChange()),
                    lambda: setattr(feed, "answer", OSError("down")),
                )
            ):
                feed.now = feed.now if isinstance(feed.now, dict) else {}
                sick()
                for number in range(40):
                    world.request(get(b"/", b"%d.test" % ((number + step + minute) % 40)))
                world.advance(10)
                clock.advance(10)
        statuses = {record.status for record in world.records}
        self.assertEqual((len(world.records), statuses), (5 * 6 * 40, {200}))
        self.assertEqual(len(alarms), 1)
        world.end()
