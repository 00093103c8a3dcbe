"""Hours of a busy door in seconds: random clients, backends, faults and redeploys, and what always holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Limits, Timeouts
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.replies import IncomingExchange, Reply
from scalingo_proxy.testing.world import World
from tests.wire.http1_strategies import EXAMPLES

#: How many runs, each of a tenth of a second or two; ``EXAMPLES`` asks for more.
RUNS = EXAMPLES or 20

HOSTS = (b"a.test", b"b.test", b"c.test")


def expected_body(path: bytes) -> bytes:
    """What a backend that serves *path*, ``/NUMBER/SIZE``, answers with."""
    _, number, size = path.split(b"/")
    word = b"<%b>" % number
    return (word * (int(size) // len(word) + 1))[: int(size)]


def serve_framed(exchange: IncomingExchange) -> None:
    """Answer so that a missing end shows."""
    body = expected_body(exchange.request.target)
    if len(body) % 2:
        replies.fixed(body).complete(exchange)
    else:
        replies.chunked([body[at : at + 900] for at in range(0, len(body), 900)]).complete(exchange)


def serve(exchange: IncomingExchange) -> None:
    """Answer well, in one of the ways there are."""
    body = expected_body(exchange.request.target)
    if body.startswith(b"<3"):
        replies.close_delimited(body).complete(exchange)
    else:
        serve_framed(exchange)


SERVE = replies.reply_with(serve)
SERVE_FRAMED = replies.reply_with(serve_framed)


def random_reply(random: Random) -> Reply:
    """Mostly well, sometimes slowly, sometimes badly."""
    cut = random.randrange(400)
    return random.choice(
        (
            SERVE,
            SERVE,
            SERVE,
            replies.delayed(random.random(), SERVE),
            replies.delayed(random.random() * 8, SERVE),
            replies.early(SERVE),
            replies.after_interim(SERVE, random.choice((100, 103))),
            replies.reset_after(cut, SERVE),
            replies.close_after(cut, SERVE_FRAMED),
            replies.close_silently(),
            replies.raw(b"nonsense\r\n\r\n"),
            replies.never(),
        )
    )


class Soak:
    """One run.

    :ivar sent: the path of every request each client began to send, in order.
    :ivar whole: the paths of those that were sent whole.
    """

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.world = World(
            seed,
            latency=random.choice((0.0, 0.0, 0.01)),
            cut=random.random() < 0.6,
            shuffle=random.random() < 0.6,
            buffer_bytes=random.choice((2048, 16384, 65536)),
            timeouts=Timeouts(
                connect=1.0, first_byte=6.0, idle=8.0, request_body=5.0, keep_alive=10.0, queue=4.0
            ),
            limits=Limits(
                in_flight_per_backend=random.choice((1, 2, 10)), queue_per_backend=random.choice((2, 20))
            ),
        )
        self.sent: dict[ScriptedClient, list[bytes]] = {}
        self.posts: set[bytes] = set()
        self._count = 0
        for host in HOSTS:
            backends = [self.backend() for _ in range(random.randint(1, 4))]
            self.world.app(host.decode()[0], [host.decode()], backends)

    def backend(self) -> ScriptedBackend:
        """A backend that serves well in the end."""
        backend = self.world.backend(f"backend-{len(self.world.backends)}").answer(SERVE)
        return backend.script(*(random_reply(self.random) for _ in range(self.random.randrange(12))))

    def run(self) -> None:
        """Let things happen, then let everything come to rest."""
        happenings = [self.ask] * 12 + [self.trouble_client, self.trouble_backend] * 2 + [self.redeploy]
        for _ in range(self.random.randint(30, 90)):
            self.random.choice(happenings)()
            self.world.advance(self.random.choice((0.0, 0.0, 0.01, 0.1, 0.7)))
            for pool in self.world.pools:
                for member in pool.members:
                    assert member.in_flight <= member.limit, member
        for client in self.sent:
            if not client.is_over:
                client.resume()
        self.world.end(patience_seconds=60)

    # -- what happens --------------------------------------------------------

    def ask(self) -> None:
        """One more request, from a new client or behind others."""
        clients = [client for client in self.sent if not client.is_over and not client.saw_end]
        if clients and self.random.random() < 0.6:
            client = self.random.choice(clients)
        else:
            client = self.world.client()
            self.sent[client] = []
        if client.is_over:
            return
        self._count += 1
        path = b"/%d/%d" % (self._count, self.random.choice((0, 7, 300, 5000, 60_000)))
        data = self.request(path)
        self.sent[client].append(path)
        if self.random.random() < 0.07:
            data = data[: self.random.randrange(1, len(data))]
            client.send(data)
            self.random.choice((client.half_close, client.abort))()
        elif len(data) < 2000 and self.random.random() < 0.3:
            client.send_cut(data, self.random)
        else:
            client.send(data)

    def request(self, path: bytes) -> bytes:
        """A request for *path*."""
        random = self.random
        method = random.choice((b"GET", b"GET", b"GET", b"POST", b"POST", b"PUT"))
        version = random.choice((b"1.1", b"1.1", b"1.1", b"1.0"))
        head = b"%b %b HTTP/%b\r\nHost: %b\r\n" % (method, path, version, random.choice(HOSTS))
        if random.random() < 0.1:
            head += b"Connection: %b\r\n" % random.choice((b"close", b"keep-alive"))
        if method == b"GET":
            return head + b"\r\n"
        if method == b"POST":
            self.posts.add(path)
        body = b"x" * random.choice((0, 1, 900, 40_000))
        if random.random() < 0.15:
            head += b"Expect: 100-continue\r\n"
        if version == b"1.1" and random.random() < 0.5:
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(body[at : at + 777]), body[at : at + 777])
                              for at in range(0, len(body), 777))  # fmt: skip
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def trouble_client(self) -> None:
        """A client stops reading, reads again, or leaves."""
        clients = [client for client in self.sent if not client.is_over]
        if clients:
            client = self.random.choice(clients)
            leave: Callable[[], Any] = self.random.choice(
                (client.pause, client.resume, client.half_close, client.close, client.abort)
            )
            leave()

    def trouble_backend(self) -> None:
        """A backend crashes, comes back, vanishes, or closes what it has."""
        backend = self.random.choice(self.world.backends)
        network = self.world.network
        self.random.choice(
            (
                backend.crash,
                backend.listen_again,
                backend.close_connections,
                lambda: network.black_hole(backend.address),
                lambda: network.restore(backend.address),
            )
        )()

    def redeploy(self) -> None:
        """An app gets other backends, or another state."""
        name = self.random.choice("abc")
        if self.random.random() < 0.6:
            kept = list(self.world.resolver.apps()[name].backends[:1])
            fresh = [self.backend() for _ in range(self.random.randrange(3))]
            self.world.change(name, backends=[*kept, *fresh])
        else:
            self.world.change(name, state=self.random.choice(("running", "running", "paused", "stopped")))

    # -- what came of it -----------------------------------------------------

    def story(self) -> list[object]:
        """Everything that two runs of one seed must have in common."""
        records = [
            (r.started_at, r.finished_at, r.request_id, r.path, r.status, r.code, r.backend, r.attempts,
             r.bytes_in, r.bytes_out, r.queue_seconds, r.connect_seconds, r.first_byte_at)
            for r in self.world.records
        ]  # fmt: skip
        return [records, [client.received for client in self.sent]]


class SoakTests(SynchronousTestCase):
    """Whatever happens: these hold, and nothing is left at the end."""

    def check(self, soak: Soak, where: str) -> None:
        """Look at everything that came of one run."""
        for client, paths in soak.sent.items():
            self.assertEqual(client.malformed, "", where)
            self.assertLessEqual(len(client.responses), len(paths) + 1, where)
            # One more only for bytes that were no request any more.
            for path, response in zip(paths, client.responses, strict=False):
                if response.status == 200:
                    self.assertEqual(response.body, expected_body(path), where)
                else:
                    self.assertEqual(len(response.get_all(b"X-Scalingo-Error")), 1, where)
        self.check_attempts(soak, where)
        self.check_records(soak, where)

    def check_attempts(self, soak: Soak, where: str) -> None:
        """No POST reaches a backend twice, and nothing more than three different ones."""
        asked: dict[bytes, list[ScriptedBackend]] = defaultdict(list)
        for backend in soak.world.backends:
            for request in backend.requests:
                asked[request.target].append(backend)
        for path, backends in asked.items():
            self.assertLessEqual(len(set(backends)), 3, where)
            if path in soak.posts:
                self.assertEqual(len(backends), 1, f"{where}, {path!r}")

    def check_records(self, soak: Soak, where: str) -> None:
        """Each request has at most one record, each answer exactly one, and the times make sense."""
        records = [record for record in soak.world.records if record.path != "-"]
        paths = [record.path.encode() for record in records]
        self.assertEqual(len(paths), len(set(paths)), where)
        self.assertLessEqual(set(paths), {path for paths in soak.sent.values() for path in paths}, where)
        answered = sum(len(client.responses) for client in soak.sent)
        self.assertLessEqual(answered, len(soak.world.records), where)
        for record in records:
            assert record.finished_at is not None
            self.assertLessEqual(record.started_at, record.finished_at, where)
            self.assertNotEqual(record.code, "internal-error", where)
            self.assertTrue(record.status == 200 or record.code != "-", where)

    def test_soak(self) -> None:
        """Answers belong to their requests and are whole, no POST runs twice, all ends quiet."""
        codes: dict[str, int] = defaultdict(int)
        for seed in range(RUNS):
            soak = Soak(seed)
            soak.run()
            self.check(soak, f"seed {seed}")
            for code in soak.world.observer.codes:
                codes[code] += 1
        # The runs are worth something only if much goes well and everything goes wrong.
        self.assertGreater(codes["-"], 300)
        for code in (
            *("client-closed", "connect-failed", "backend-closed", "bad-response", "first-byte-timeout"),
            *("queue-full", "queue-timeout", "pause-timeout", "app-stopped"),
        ):
            self.assertIn(code, codes)

    def test_replay(self) -> None:
        """The same seed gives the same run, to the byte and to the moment."""
        for seed in (3, 8, 14):
            first, second = Soak(seed), Soak(seed)
            first.run()
            second.run()
            self.assertEqual(first.story(), second.story())
