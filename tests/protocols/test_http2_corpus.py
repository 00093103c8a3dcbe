"""Every HTTP/2 request of the corpus through the whole proxy: what reached the backend?

As for HTTP/1, a reader that has no part in the proxy looks at the other end: no
more requests than were accepted, each as the case has it, and never a byte
that it could not place.  A second request on the same connection shows that
what was wrong cost one stream alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame

from scalingo_proxy.testing.messages import Headers, Request
from scalingo_proxy.testing.world import World, WorldApp
from tests.corpus import decode
from tests.corpus.http2 import Case, load_cases
from tests.protocols.http2_worlds import HTTP2TestCase, RawClient, headers_frame
from tests.protocols.test_corpus import AnyHost, every, failures
from tests.protocols.tls_worlds import Cut, TLSDoor, connect_inside, cut_by, whole
from tests.protocols.tls_worlds import bytewise as one_byte

#: What is ours to say, and nobody else's.
OURS = (
    b"X-Forwarded-For",
    b"X-Real-IP",
    b"X-Forwarded-Proto",
    b"X-Forwarded-Port",
    b"X-Request-ID",
    b"X-Request-Start",
)

_CASES = load_cases()
#: What is asked next on the same connection.
PROBE = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"app.test"),
    (b":path", b"/asked-next"),
]
#: Byte by byte takes long, and what is large is cut at random anyhow.
_FEW_BYTES = 1000


def frames_of(case: Case, random: Random | None) -> list[Frame]:
    """The frames of one case on stream 1, with CONTINUATION and padding by *random*."""
    frames: list[Frame] = _block(case.fields, random)
    for data in case.data:
        frame = DataFrame(1, data)
        if random is not None and random.random() < 0.5:
            frame.flags.add("PADDED")
            frame.pad_length = random.randrange(256)
        frames.append(frame)
    ending = frames[-1] if case.data else frames[0]
    if case.trailers is not None:
        trailers = _block(case.trailers, random)
        frames += trailers
        ending = trailers[0]
    if not case.unfinished:
        ending.flags.add("END_STREAM")
    return frames


def _block(fields: list[tuple[bytes, bytes]], random: Random | None) -> list[Frame]:
    block = Encoder().encode(fields, huffman=random is None)
    limit, parts = 16000, []
    while len(block) > limit:
        parts.append(block[:limit])
        block = block[limit:]
    if random is not None and block:
        for _ in range(random.randrange(4)):
            cut = random.randrange(len(block) + 1)
            parts.append(block[:cut])
            block = block[cut:]
    parts.append(block)
    first = HeadersFrame(1, parts[0])
    frames: list[Frame] = [first, *(ContinuationFrame(1, part) for part in parts[1:])]
    frames[-1].flags.add("END_HEADERS")
    return frames


def complaints(
    case: Case, client: RawClient, app: WorldApp, scheme: bytes = b"http", address: bytes = b"192.0.2.1"
) -> list[str]:
    """What is not as the case has it.

    :param scheme: what the client really speaks, whatever it says.
    :param address: where it really comes from.
    """
    backend = app.backend
    found = [f"the backend could not read: {why}" for why in backend.malformed]
    requests = [request for request in backend.requests if request.target != b"/asked-next"]
    whole = [request for request in requests if request.is_complete]
    begun_at_most = 1 if case.accepts or case.data else 0
    if len(requests) > begun_at_most or len(whole) > (1 if case.accepts else 0):
        found.append(f"{len(requests)} requests reached the backend, {len(whole)} of them whole")
    if case.accepts is not None:
        if not requests:
            found.append("nothing reached the backend")
        for request in requests:
            found += _differences(case, request) + _forged(request.headers, scheme, address)
    verdict = verdict_of(client)
    if verdict != case.then:
        found.append(f"the client was told {verdict!r}")
    asked_next = [request for request in backend.requests if request.target == b"/asked-next"]
    if len(asked_next) != (case.then != "goaway") or (asked_next and client.statuses_of(3)[-1:] != [200]):
        found.append("the next request on this connection was not served as it should be")
    return found


def _differences(case: Case, request: Request) -> list[str]:
    outcome, found = case.accepts, []
    assert outcome is not None
    method, target, name = outcome.line.split(" ")
    told = (request.method, request.target, request.body, request.trailers)
    wanted = (method.encode(), decode(target), outcome.body, tuple(outcome.trailers))
    if told != wanted:
        found.append(f"the backend saw {told}, not {wanted}")
    if _name(request.get(b"Host")) != name:
        found.append(f"the backend was asked for {request.get(b'Host')!r}")
    if case.rewritten is not None and _without_ours(request) != case.rewritten:
        found.append(f"this travelled on: {_without_ours(request)!r}")
    return found


def _name(host: bytes) -> str:
    name = host.decode().lower()
    if name.startswith("["):
        return "[2001:db8::7]"
    return name.partition(":")[0].removesuffix(".")


def _without_ours(request: Request) -> bytes:
    ours = {name.lower() for name in OURS}
    lines = [b"%b: %b" % field for field in request.headers if field[0].lower() not in ours]
    framing = (b"transfer-encoding: chunked", b"connection: keep-alive")
    kept = [line for line in lines if line.lower() not in framing]
    return b"".join(line + b"\r\n" for line in (request.start_line, *kept, b"<ours>"))


def _forged(headers: Headers, scheme: bytes, address: bytes) -> list[str]:
    """Whether a backend that reads ``_`` and ``.`` as ``-`` could believe a word of the client's."""
    read = [bytes(c if chr(c).isalnum() and c < 128 else 45 for c in name.lower()) for name, _ in headers]
    found = [f"{name!r} does not stand once" for name in OURS if read.count(name.lower()) != 1]
    relayed = [name for name in (b"forwarded", b"x-forwarded-host", b"proxy") if name in read]
    found += [f"{name!r} was relayed" for name in relayed]
    values = dict(zip(read, (value for _, value in headers), strict=True))
    if (values.get(b"x-forwarded-for"), values.get(b"x-real-ip")) != (address, address):
        found.append("the client's address is not what it is")
    if values.get(b"x-forwarded-proto") != scheme:
        found.append("the client's scheme is not what it is")
    return found


def verdict_of(client: RawClient) -> str:
    """What the client was told on stream 1."""
    if client.goaway:
        return "goaway"
    told = [listed for stream_id, listed in client.lists if stream_id == 1]
    if told:
        code = told[-1].get(b"x-scalingo-error", b"").partition(b";")[0].decode()
        return code or ("ready" if told[-1][b":status"] == b"200" else "?")
    if 1 in client.resets:
        return "reset" if client.resets[1] == ErrorCodes.PROTOCOL_ERROR else f"reset {client.resets[1]}"
    return "waits"


class CorpusTests(HTTP2TestCase):
    """Each case has the same outcome, however its bytes travel."""

    scheme = b"http"

    def open(self, seed: int, cut: bool, bytewise: bool) -> tuple[World, RawClient]:
        """A world and a client of its proxy, whose bytes travel as they shall."""
        world = World(seed, resolver=AnyHost(), build=self.build, cut=cut)
        if bytewise:
            world.network.kernel.read_bytes = 1
        return world, self.connect_to(world)

    def connect_to(self, world: World) -> RawClient:
        """A client of the proxy of *world*."""
        client: RawClient = self.connect(world, RawClient(), "192.0.2.1")
        return client

    def run_case(
        self, case: Case, seed: int = 0, cut: bool = False, bytewise: bool = False, framewise: bool = False
    ) -> list[str]:
        world, client = self.open(seed, cut, bytewise)
        app = world.app("any", ["any.test"])
        client.begin()
        frames = [*frames_of(case, Random(seed) if cut else None), headers_frame(3, PROBE, "END_STREAM")]
        if framewise:
            self.keep_a_connection(world, app)
            for frame in frames:
                client.write(frame)
                world.settle()
        else:
            client.write(*frames)
        world.advance(1.0)
        found = complaints(case, client, app, self.scheme)
        client.close()
        world.advance(1.0)
        if case.accepts is None and any(
            r.is_complete and r.target != b"/asked-next" for r in app.backend.requests
        ):
            found.append("a whole request reached the backend when the client left")
        world.end()
        return found

    def keep_a_connection(self, world: World, app: WorldApp) -> None:
        """Have a connection to the backend at hand, so that nothing waits for one to be made."""
        client = self.connect_to(world).begin()
        client.write(headers_frame(1, PROBE, "END_STREAM"))
        world.run_until(lambda: client.statuses_of(1))
        client.close()
        world.settle()
        del app.backend.requests[:]

    def chosen(self, way: int, cases: Sequence[Case] = _CASES) -> Sequence[Case]:
        """Those of *cases* that travel in this way: plain, all of them."""
        return cases

    def test_whole(self) -> None:
        """As one segment."""
        self.assertGreater(len(_CASES), 290)
        self.assertEqual({}, failures(self.run_case, self.chosen(0)))

    def test_cut(self) -> None:
        """In segments and frames of random sizes."""
        self.assertEqual({}, failures(self.run_case, self.chosen(1), cut=True))

    def test_framewise(self) -> None:
        """A frame at a time, each passed on before the next one comes."""
        self.assertEqual({}, failures(self.run_case, self.chosen(2), framewise=True))

    def test_bytewise(self) -> None:
        """Read a byte at a time; writes are cut above."""
        few = [case for case in _CASES if sum(len(name + value) for name, value in case.fields) < _FEW_BYTES]
        self.assertGreater(len(few), 280)
        self.assertEqual({}, failures(self.run_case, self.chosen(3, few), bytewise=True))


class TLSCorpusTests(CorpusTests):
    """The same inside TLS, agreed on by ALPN: cut into records at will, a byte in each at last."""

    scheme = b"https"

    def chosen(self, way: int, cases: Sequence[Case] = _CASES) -> Sequence[Case]:
        """Each case travels inside TLS in two ways of the four."""
        return every(cases, 2, way % 2)

    def open(self, seed: int, cut: bool, bytewise: bool) -> tuple[World, RawClient]:
        """The same."""
        world = World(seed, resolver=AnyHost(), build=TLSDoor, alpn="h2", cut=cut)
        records = one_byte if bytewise else cut_by(Random(seed)) if cut else whole
        return world, self.connect_to(world, records)

    def connect_to(self, world: World, records: Cut = whole) -> RawClient:
        """The same."""
        client: RawClient = connect_inside(world, RawClient(), "192.0.2.1", records, "h2")
        return client
