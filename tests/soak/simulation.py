"""An hour of a busy proxy in memory: every kind of request, faults, outages, deploys, from one seed.

Three doors share one environment and its probes: HTTP/1.1, HTTP/2 and TLS that
passes through.  Each app has one backend whose connections are often in trouble and
others that are sound but for one outage of one of them at a time, so that a
request, which meets at most three, can always meet a sound one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure

from scalingo_proxy.model import Limits, Quarantine, Timeouts, join_host_port
from scalingo_proxy.protocols.probes import BackendProbe
from scalingo_proxy.protocols.tls_passthrough_factory import TLSPassthroughFactory
from scalingo_proxy.services.health_checks import HealthChecksService
from scalingo_proxy.services.paced_probes import PacedProbes
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.faults import BlackHole, Drip, Fault, Faults, HalfOpen, Refuse, Reset, Stall
from scalingo_proxy.testing.replies import IncomingExchange
from scalingo_proxy.testing.world import World
from tests.protocols.http2_worlds import HTTP2Factory
from tests.soak.callers import HELLO, Caller, HTTP2Caller, HTTPCaller, PassedCaller, WebSocketCaller
from tests.soak.exchanges import Exchange, Touch
from tests.soak.members import Execution, SoakMember, SoakMembers
from tests.soak.verdict import Verdict

__all__ = ["SimulatedHour"]

PLAIN = ("amber", "birch")
SEALED = ("cedar",)

#: How each is probed: by connections, or by requests, the second also while it is up.
_HEALTH = {"amber": {}, "birch": {"path": "/up", "interval": 20.0}, "cedar": {"interval": 60.0}}

#: The doors beside the one of the world.
HTTP2_DOOR = ("127.0.0.1", 8082)
TLS_DOOR = ("127.0.0.1", 8443)

#: For how long an outage that is over may still show: the quarantine it led to.
RECOVERY_SECONDS = 12.0

#: What happens to clients that are in trouble themselves.
_OF_CLIENTS = (Reset, HalfOpen, Drip, Stall, Refuse, BlackHole)

#: How long clients may keep a connection that they do not use.
_KEEP_ALIVE_SECONDS = 30.0

#: How long connections that nobody told of a lost machine are kept.
_KEPT_SECONDS = 60.0

#: Between a redeploy and the end of what it replaced.
_LINGER_SECONDS = 45.0


class SimulatedMember(SoakMember):
    """One backend in memory; *host* is its address."""

    def __init__(self, app: str, name: str, host: str) -> None:
        super().__init__(app, name)
        self.host = host
        self.end: Callable[[], Any] = lambda: None

    @property
    def address(self) -> str:
        return join_host_port(self.host, 3000)


class SimulatedHour(SoakMembers):
    """One run.

    :ivar exchanges: everything that was asked.
    :ivar counts: what was done to the apps and their backends, by kind.

    :param seconds: how long it is.
    :param pause: seconds between two requests, on average.
    :param client_share: how many of the connections from clients are in trouble themselves.
    """

    def __init__(
        self, seed: int, seconds: float = 3600.0, pause: float = 1.8, client_share: float = 0.0
    ) -> None:
        self.seed = seed
        self.seconds = seconds
        self._pause = pause
        self._client_share = client_share
        self._random = Random(seed)
        self.world = World(
            seed,
            latency=0.002,
            shuffle=True,
            timeouts=Timeouts(
                connect=2.0,
                first_byte=10.0,
                idle=20.0,
                request_body=10.0,
                keep_alive=_KEEP_ALIVE_SECONDS,
                queue=8.0,
                drain=10.0,
            ),
            limits=Limits(in_flight_per_backend=20, queue_per_backend=50),
            quarantine=Quarantine(first=0.5, max=5.0),
        )
        network = self.world.network
        probes = PacedProbes(BackendProbe(network), network)
        self._checks = HealthChecksService(
            self.world.pools, self.world.resolver, probes, network, Random(f"{seed}/probes")
        )
        self._checks.startService()
        env = self.world.factory.env
        self._doors = [HTTP2Factory(env=env, listener="h2"), TLSPassthroughFactory(env=env, listener="tls")]
        self._ports = [
            self.world.network.listenTCP(address[1], door, interface=address[0])
            for address, door in zip((HTTP2_DOOR, TLS_DOOR), self._doors, strict=True)
        ]
        self.counts: Counter[str] = Counter()
        self.exchanges: list[Exchange] = []
        self.members: dict[str, list[SimulatedMember]] = {}
        self._everybody: list[SimulatedMember] = []
        self._executions: list[Execution] = []
        self._under_way: dict[Exchange, Caller] = {}
        self._idle: list[HTTPCaller] = []
        self._http2: list[HTTP2Caller] = []
        self._stopped: dict[str, list[tuple[float, float]]] = {name: [] for name in PLAIN + SEALED}
        for app in PLAIN + SEALED:
            self.members[app] = self._fresh(app, 4)
            self.world.app(
                app,
                [f"{app}.test"],
                self.members[app],  # type: ignore[arg-type]
                tls="passthrough" if app in SEALED else "terminate",
                health=_HEALTH[app],
            )
            for member in self.members[app]:
                member.serves_from = 0.0
            self.trouble(self.members[app][0])

    # -- running -------------------------------------------------------------

    def run(self) -> None:
        """Let the hour pass, let everything come to rest, and see that nothing is left."""
        self._arrivals()
        if self._client_share:
            for door in (self.world.address, TLS_DOOR):
                address = join_host_port(*door)
                series = Faults(f"{self.seed}/{address}", self._client_share, _OF_CLIENTS)
                self.world.network.faults.plan(address, series)
        for app in PLAIN + SEALED:
            self._outages(app, Faults(f"{self.seed}/{app}").outages(
                self.seconds, every=45.0, lasting=(1.0, 25.0),
                faults=(Refuse(), BlackHole(), Reset(), Stall(), HalfOpen()),
            ))  # fmt: skip
            self._later(self._random.uniform(30, 300), self._operate, app)
        self.world.advance(self.seconds)
        self.world.network.faults.end()
        self.world.advance(150.0)
        assert self._client_share or not self._under_way, f"not over: {list(self._under_way)}"
        for asking in list(self._under_way.values()):
            if not asking.is_over:
                asking.abort()  # who was cut off would wait for ever
        self.world.settle()
        for caller in (*self._idle, *self._http2):
            caller.close()
        self.world.settle()
        self.world.run_until(maybeDeferred(self._checks.stopService))
        for port, door in zip(self._ports, self._doors, strict=True):
            self.world.run_until(maybeDeferred(port.stopListening))
            self.world.run_until(maybeDeferred(door.drain, 0))
        for member in self._everybody:
            member.end()
        self.world.end(patience_seconds=5.0)

    def verdict(self) -> Verdict:
        """What has to be said about it."""
        records = {record.request_id: record for record in self.world.records}
        by_client = {record.client: record for record in self.world.records if record.protocol == "tls"}
        asked: dict[str, str] = {}
        # Their clients saw nothing of answers that broke off inside the head.
        broken_in_answers = {
            join_host_port(*met.address)
            for met in self.world.network.faults.met
            if isinstance(met.fault, Reset) and met.fault.of == "response" and met.fault.at
        }
        for exchange in self.exchanges:
            record = records.get(exchange.id) or by_client.get(exchange.source)
            if record is not None:
                asked[exchange.id] = record.backend
                if exchange.code and record.code != "-":
                    exchange.code = record.code
                exchange.has_begun |= record.backend in broken_in_answers
            # Who could not connect is told of that, although the app stopped before another was asked.
            if exchange.code in ("app-stopped", "connect-failed") and self._was_stopped(exchange):
                self.counts["refused while stopped"] += 1
                exchange.code = ""
        verdict = Verdict(self.exchanges, self, asked, RECOVERY_SECONDS)
        answered = Counter(record.request_id for record in self.world.records)
        verdict.faults += [f"{count} records of {name}" for name, count in answered.items() if count > 1]
        return verdict

    def digest(self) -> str:
        """The story of the run: equal for equal runs."""
        story = hashlib.sha256()
        for record in self.world.records:
            told = (record.request_id, record.backend, record.status, record.code, record.attempts)
            times = (record.started_at, record.finished_at, record.bytes_in, record.bytes_out)
            story.update(repr((told, times)).encode())
        for exchange in self.exchanges:
            told = (exchange.id, exchange.ended, exchange.status, exchange.code, exchange.backend)
            story.update(repr(told).encode())
        story.update(repr((self._executions, self.world.network.faults.met)).encode())
        return story.hexdigest()

    def everybody(self) -> list[SimulatedMember]:
        return self._everybody

    def executions(self) -> list[Execution]:
        return self._executions

    @property
    def now(self) -> float:
        return self.world.clock.seconds()

    def _later(self, seconds: float, call: Callable[..., Any], *args: Any) -> None:
        if self.now + seconds < self.seconds:
            self.world.network.callLater(seconds, call, *args)

    # -- what is asked -------------------------------------------------------

    def _arrivals(self) -> None:
        self._later(self._random.expovariate(1 / self._pause), self._arrivals)
        kind = self._random.choices(
            ("GET", "POST", "UPLOAD", "WEBSOCKET", "GET h2", "POST h2", "passed"), (45, 18, 4, 6, 8, 5, 14)
        )[0]
        app = self._random.choice(SEALED if kind == "passed" else PLAIN)
        number = len(self.exchanges) + len(self._under_way) + 1
        exchange = Exchange(f"{self.seed:08x}-{number:024x}", kind, app, self.now)
        exchange.is_repeatable = kind.startswith(("GET", "WEB"))
        exchange.is_tunnel = kind in ("WEBSOCKET", "passed")
        exchange.source = f"10.9.{number // 250 % 250}.{number % 250 + 1}"
        caller = self._caller(kind, exchange)
        self._under_way[exchange] = caller
        caller.begin(exchange, self._random)

    def _caller(self, kind: str, exchange: Exchange) -> Caller:
        network = self.world.network
        if kind == "passed":
            return PassedCaller(network, TLS_DOOR, self._over, exchange.source)
        if kind == "WEBSOCKET":
            return WebSocketCaller(network, self.world.address, self._over)
        if kind.endswith("h2"):
            self._http2 = [caller for caller in self._http2 if self._may_ask(caller)]
            if not self._http2 or self._random.random() < 0.05:
                self._http2.append(HTTP2Caller(network, HTTP2_DOOR, self._over))
            return self._random.choice(self._http2)
        self._idle = [caller for caller in self._idle if self._may_ask(caller)]
        if self._idle and self._random.random() < 0.7:
            return self._idle.pop(self._random.randrange(len(self._idle)))
        return HTTPCaller(network, self.world.address, self._over)

    def _may_ask(self, caller: HTTPCaller | HTTP2Caller) -> bool:
        """Whether it may be used: who asks just when the proxy gives it up, may have to repeat it."""
        is_fresh = caller.idle_since is None or self.now - caller.idle_since < _KEEP_ALIVE_SECONDS - 1.0
        return not caller.is_over and is_fresh

    def _over(self, exchange: Exchange, caller: Caller) -> None:
        exchange.ended = self.now
        del self._under_way[exchange]
        self.exchanges.append(exchange)
        if type(caller) is HTTPCaller and not caller.is_over:
            caller.idle_since = self.now
            self._idle.append(caller)

    # -- who serves ----------------------------------------------------------

    def _fresh(self, app: str, count: int) -> list[SimulatedMember]:
        """New backends; the first of each app's four is the one in trouble."""
        fresh = []
        for _ in range(count):
            number = len(self._everybody) + 1
            host = f"10.0.{number // 250}.{number % 250 + 1}" if number % 2 else f"2001:db8::{number:x}"
            member = SimulatedMember(app, f"{app}-{number}", host)
            self._everybody.append(member)
            fresh.append(member)
            if app in SEALED:
                member.end = SealedServer(self, member).end
            else:
                backend = self.world.backend(member.address).answer(replies.reply_with(self._serve(member)))
                member.end = lambda backend=backend: _end(backend)  # type: ignore[misc]
        return fresh

    def trouble(self, member: SimulatedMember) -> None:
        """From now on, about a third of its connections meet a fault."""
        series = Faults(f"{self.seed}/{member.name}", share=0.35)
        self.world.network.faults.plan(member.address, series)
        member.touches.append(Touch("in trouble", self.now))

    def note(self, request_id: str, method: str, member: SimulatedMember) -> None:
        """*member* executes a request."""
        self._executions.append((self.now, request_id, method, member.name))

    def _serve(self, member: SimulatedMember) -> Callable[[IncomingExchange], None]:
        def serve(exchange: IncomingExchange) -> None:
            request = exchange.request
            path, _, wish = request.target.partition(b"?")
            if path == b"/up":
                replies.fixed(b"up").complete(exchange)
                return
            request_id = path[1:].decode()
            self.note(request_id, request.method.decode(), member)
            named = ((b"X-Backend", member.name.encode()),)
            if request.get(b"Upgrade"):
                replies.upgrade_echo(b"websocket", greeting=b"").complete(exchange)
                return
            body = b"%b %d " % (request_id.encode(), len(request.body))
            kind, _, amount = wish.partition(b"=")
            if kind == b"size":
                replies.fixed(body + bytes(int(amount)), headers=named).complete(exchange)
            elif kind == b"think":
                replies.delayed(float(amount), replies.fixed(body, headers=named)).complete(exchange)
            elif kind == b"drip":
                replies.drip([body, *[b"."] * 5], float(amount), headers=named).complete(exchange)
            else:
                replies.chunked([body, b"."], headers=named).complete(exchange)

        return serve

    # -- what happens to them --------------------------------------------------

    def _outages(self, app: str, outages: Any) -> None:
        """Deal each to one of those that are sound so far."""
        if outages:
            first, *rest = outages
            wait = max(0.0, first.begins - self.now)
            self._later(wait, self._outage, app, first.fault, first.seconds, rest)

    def _outage(self, app: str, fault: Fault, seconds: float, rest: Any) -> None:
        member = self._random.choice(self.members[app][1:])
        touch = Touch(type(fault).__name__, self.now, self.now + seconds)
        if isinstance(fault, HalfOpen):
            # A machine that is gone does not answer attempts, either.
            self.world.network.faults.suffer(member.address, BlackHole(), seconds)
            touch.ended += _KEPT_SECONDS
        self.world.network.faults.suffer(member.address, fault, seconds)
        member.touches.append(touch)
        self.counts[touch.kind] += 1
        self._outages(app, rest)

    def _operate(self, app: str) -> None:
        self._later(self._random.uniform(60, 300), self._operate, app)
        self._random.choice((self._redeploy, self._redeploy, self._scale, self._interrupt))(app)

    def _redeploy(self, app: str) -> None:
        self.counts["redeployed"] += 1
        kept = self._random.choice((0, 0, 1, 2))
        old = self.members[app]
        fresh = self._fresh(app, 4 - kept)
        self._become(app, [*fresh, *old[len(old) - kept :]])

    def _scale(self, app: str) -> None:
        self.counts["scaled"] += 1
        old = self.members[app]
        count = self._random.choice((3, 4, 6))
        self._become(app, [*old[:count], *self._fresh(app, max(0, count - len(old)))])

    def _become(self, app: str, members: list[SimulatedMember]) -> None:
        self.world.change(app, backends=members)
        for member in members:
            member.serves_from = min(member.serves_from, self.now)
        for member in self.members[app]:
            if member not in members:
                member.serves_until = member.gone_from = self.now
                # Its address is somebody else's by now, who would execute what came.
                self._later(_LINGER_SECONDS, member.end)
        self.members[app] = members
        if not members[0].touches:
            self.trouble(members[0])

    def _interrupt(self, app: str) -> None:
        """Paused or stopped for some seconds."""
        state = self._random.choice(("paused", "stopped"))
        self.counts[state] += 1
        seconds = self._random.uniform(0.5, 5.0)
        if state == "stopped":
            self._stopped[app].append((self.now, self.now + seconds))
        self.world.change(app, state=state)
        self.world.network.callLater(seconds, self.world.change, app, state="running")

    def _was_stopped(self, exchange: Exchange) -> bool:
        times = self._stopped[exchange.app]
        return any(began <= exchange.ended and ended >= exchange.began for began, ended in times)


def _end(backend: ScriptedBackend) -> None:
    backend.crash()


class SealedConnection(Protocol):
    """Swallows the hello, then answers each line with its name behind it."""

    transport: Any

    def __init__(self, server: SealedServer) -> None:
        self._server = server
        self._received = b""
        self._is_greeted = False

    def connectionMade(self) -> None:
        self._server.connections[self] = None

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if not self._is_greeted:
            if len(self._received) < len(HELLO):
                return
            assert self._received.startswith(HELLO)
            self._received = self._received[len(HELLO) :]
            self._is_greeted = True
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            self._server.asked(line)
            self.transport.write(b"%b %b\n" % (line, self._server.member.name.encode()))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.connections.pop(self, None)


class SealedServer(ServerFactory):
    """A backend whose TLS is its own, as far as anybody can see."""

    noisy = False

    def __init__(self, hour: SimulatedHour, member: SimulatedMember) -> None:
        self._hour = hour
        self.member = member
        self.connections: dict[SealedConnection, None] = {}
        self._port: Any = hour.world.network.listenTCP(3000, self, interface=member.host)

    def buildProtocol(self, addr: Any) -> SealedConnection:
        return SealedConnection(self)

    def asked(self, line: bytes) -> None:
        """The first line of a connection counts as the execution."""
        request_id, _, number = line.decode().partition(" ")
        if number == "0":
            self._hour.note(request_id, "passed", self.member)

    def end(self) -> None:
        """Stop listening, and reset what is open."""
        if self._port is not None:
            port, self._port = self._port, None
            port.stopListening()
        for connection in list(self.connections):
            connection.transport.abortConnection()
