"""Worlds in which everything goes wrong at random, and what holds in all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import Limits
from scalingo_proxy.testing import replies
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.clients import ScriptedClient
from scalingo_proxy.testing.replies import IncomingExchange, Reply
from scalingo_proxy.testing.world import World

#: How many worlds; each takes a tenth of a second.
WORLDS = 15


def telling(make: Callable[[bytes], Reply]) -> Reply:
    """A reply whose body is made from the tag of the request it answers."""

    def answer(exchange: IncomingExchange) -> None:
        make(exchange.request.get(b"X-Tag")).complete(exchange)

    return replies.reply_with(answer)


def answer_plainly(exchange: IncomingExchange) -> None:
    """Switch protocols when asked to, else send the tag back."""
    if exchange.request.get(b"Upgrade"):
        replies.upgrade_echo(b"chat", greeting=b"hi").complete(exchange)
    else:
        replies.fixed(exchange.request.get(b"X-Tag")).complete(exchange)


PLAIN = replies.reply_with(answer_plainly)


def random_reply(random: Random) -> Reply:
    """Something that a backend may do, well or badly."""
    many = random.randint(1, 5000)
    few = random.randint(0, 200)
    return random.choice(
        (
            PLAIN,
            telling(lambda tag: replies.fixed(tag * many)),
            telling(lambda tag: replies.chunked([tag] * 20)),
            telling(lambda tag: replies.close_delimited(tag)),
            telling(lambda tag: replies.drip([tag] * 4, 1)),
            replies.delayed(few / 40, PLAIN),
            replies.early(PLAIN),
            replies.after_interim(PLAIN, 100),
            replies.after_interim(PLAIN, 103),
            replies.reset_after(few, telling(lambda tag: replies.fixed(tag * many))),
            replies.close_after(few, telling(lambda tag: replies.chunked([tag] * 20))),
            replies.raw(b"junk\r\n\r\n", close=bool(few % 2)),
            replies.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            replies.bulk(many * 50),
            replies.upgrade_echo(b"chat"),
            replies.close_silently(),
            replies.never(),
        )
    )


def random_request(random: Random, tag: bytes) -> bytes:
    """A request to one of three apps, or to none, with *tag* in head and body."""
    kind = random.choice((b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"upgrade"))
    method = b"GET" if kind == b"upgrade" else kind
    version = random.choice((b"1.0", b"1.1", b"1.1", b"1.1"))
    head = b"%s / HTTP/%s\r\nHost: app-%d.test\r\nX-Tag: %s\r\n" % (
        method,
        version,
        random.choice((0, 1, 2, 0, 1, 2, 0, 1, 2, 3)),
        tag,
    )
    if kind == b"upgrade":
        return head + b"Connection: upgrade\r\nUpgrade: chat\r\n\r\n"
    if method not in (b"POST", b"PUT"):
        return head + b"\r\n"
    body = tag * random.choice((1, 10, 20000))
    if random.random() < 0.3:
        head += b"Expect: 100-continue\r\n"
    if version == b"1.0" or random.random() < 0.5:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


class Mayhem:
    """One random run.

    :ivar sent: the tags that each client sent whole, in order.
    """

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.world = World(
            seed,
            latency=random.choice((0, 0.001, 0.02)),
            cut=random.random() < 0.5,
            shuffle=random.random() < 0.5,
            buffer_bytes=random.choice((1024, 65536)),
            limits=Limits(
                in_flight_per_backend=random.choice((1, 2, 50)), queue_per_backend=random.choice((1, 50))
            ),
        )
        self.sent: dict[ScriptedClient, list[bytes]] = {}
        self._usable: list[ScriptedClient] = []
        self._count = 0
        for number in range(3):
            app = self.world.app(f"app-{number}", [f"app-{number}.test"], random.randint(1, 3))
            for backend in app.backends:
                backend.script(*(random_reply(random) for _ in range(random.randint(0, 25)))).answer(PLAIN)

    def run(self) -> None:
        """Do some dozens of random things, then end the world."""
        for _ in range(self.random.randint(5, 80)):
            self._usable = [client for client in self._usable if not client.is_over]
            if not self._usable or self.random.random() < 0.25:
                self._arrive()
            if self.random.random() < 0.75:
                self._send(self.random.choice(self._usable))
            else:
                self.random.choice((self._meddle_with_client, self._meddle_with_backend, self._change_app))()
            self.world.advance(self.random.choice((0, 0, 0, 0.001, 0.01, 0.5, 3, 40)))
        for client in self.sent:
            client.resume()
        self.world.end(patience_seconds=300)

    def _arrive(self) -> None:
        client = self.world.client(f"192.0.2.{self.random.randint(1, 254)}")
        self.sent[client] = []
        self._usable.append(client)

    def _send(self, client: ScriptedClient) -> None:
        self._count += 1
        tag = b"<%d>" % self._count
        data = random_request(self.random, tag)
        if self.random.random() < 0.05:
            # Cut off: nothing sensible can follow on this connection.
            data = data[: self.random.randint(1, len(data) - 1)]
            self._usable.remove(client)
        self.sent[client].append(tag)
        if len(data) < 1000 and self.random.random() < 0.3:
            client.send_cut(data, self.random)
        else:
            client.send(data)

    def _meddle_with_client(self) -> None:
        client = self.random.choice(self._usable)
        self.random.choice((client.pause, client.resume, client.half_close, client.close, client.abort))()

    def _meddle_with_backend(self) -> None:
        backend: ScriptedBackend = self.random.choice(self.world.backends)
        self.random.choice(
            (backend.crash, backend.close_connections, backend.stop_listening, backend.listen_again)
        )()

    def _change_app(self) -> None:
        name = f"app-{self.random.randrange(3)}"
        state = self.random.choice(("running", "paused", "stopped", "replaced"))
        if state == "replaced":
            self.world.change(name, backends=[self.world.backend(f"new-{self._count}").answer(PLAIN)])
        else:
            self.world.change(name, state=state)


class RandomWorldTests(SynchronousTestCase):
    def check(self, seed: int) -> None:
        """What holds whatever happened; ending the world checks that nothing is left."""
        run = Mayhem(seed)
        run.run()
        for client, tags in run.sent.items():
            self.assertEqual(client.malformed, "", f"seed {seed}")
            for tag, response in zip(tags, client.responses, strict=False):
                body = response.body
                if response.status == 200 and body.startswith(b"<"):
                    self.assertEqual(body[: body.index(b">") + 1], tag, f"seed {seed}")
        self.check_repetitions(run.world, f"seed {seed}")
        answered = sum(len(client.responses) for client in run.sent)
        self.assertGreaterEqual(len(run.world.records), answered, f"seed {seed}")

    def check_repetitions(self, world: World, seed: str) -> None:
        """No POST runs twice, and nothing is tried at more than three backends."""
        posts: Counter[bytes] = Counter()
        tried: dict[bytes, set[ScriptedBackend]] = {}
        for backend in world.backends:
            for request in backend.requests:
                tried.setdefault(request.get(b"X-Tag"), set()).add(backend)
                posts[request.get(b"X-Tag")] += request.method == b"POST"
        self.assertLessEqual(max(posts.values(), default=0), 1, seed)
        self.assertLessEqual(max(map(len, tried.values()), default=0), 3, seed)

    def test_nothing_is_mixed_up_or_left(self) -> None:
        """Every answer belongs to its request, no POST runs twice, and all ends quiet."""
        for seed in range(WORLDS):
            self.check(seed)
