"""Whatever a client sends, no backend sees more requests than the proxy has counted.

A request that a backend sees and the proxy does not know of is a smuggled
one.  ``EXAMPLES=20000 python -m twisted.trial tests.protocols.test_counting``
looks longer, and at other inputs each time.
"""

from __future__ import annotations

from hyperframe.frame import DataFrame
from hypothesis import given
from hypothesis import strategies as st

from scalingo_proxy.testing.world import World, WorldApp
from tests.protocols.http2_worlds import Fields, HTTP2TestCase, RawClient, build_http2_factory, headers_frame
from tests.protocols.test_corpus import AnyHost
from tests.protocols.worlds import WorldTestCase
from tests.wire.http1_strategies import cut_places, examples, pieces, request_streams


def assert_counted(test: WorldTestCase, world: World, app: WorldApp) -> None:
    """End *world*, and compare what was told of it with what the backend saw."""
    world.end()
    test.assertEqual([], app.backend.malformed)
    seen = [request.request_id for request in app.backend.requests]
    told = [record.request_id.encode() for record in world.records if record.backend]
    test.assertEqual(sorted(seen), sorted(set(seen) & set(told)), "seen, but not told of")
    test.assertLessEqual(len(seen), len(told))


class HTTP1Tests(WorldTestCase):
    """Streams of requests: valid, damaged, spliced."""

    @examples(200)
    @given(request_streams, cut_places)
    def test_streams(self, stream: bytes, places: list[float]) -> None:
        """In pieces of any size."""
        world = World(resolver=AnyHost())
        app = world.app("any", ["any.test"])
        client = world.client()
        for piece in pieces(stream, places):
            client.send(piece)
            world.advance(0.01)
        assert_counted(self, world, app)


_HOSTILE = st.one_of(
    st.sampled_from(
        [
            b"x\r\nX-Smuggled: 1",
            b"x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: any.test\r\n\r\n",
            b"x\ny",
            b"x\0y",
            b" x",
            b"x\t",
            b"chunked",
            b"0",
            b"5, 5",
            b"+5",
            b"100-continue",
            b"any.test",
            b"websocket",
        ]
    ),
    st.binary(max_size=12),
)
_NAMES = st.one_of(
    st.sampled_from(
        b"content-length transfer-encoding te connection host expect cookie upgrade trailer "
        b"x-forwarded-for x_forwarded_for content_length proxy-connection Content-Length".split()
    ),
    st.sampled_from([b"a b", b"a:b", b"a\r\nb", b"", b":path", b":method", b":unknown"]),
    st.binary(max_size=8),
)
_PSEUDO = {
    b":method": st.one_of(
        st.sampled_from([b"GET", b"POST", b"CONNECT", b"GET / HTTP/1.1\r\nx: y", b"G T"]), _HOSTILE
    ),
    b":scheme": st.sampled_from([b"https", b"http", b"ftp", b"https\r\nx: y"]),
    b":path": st.one_of(
        st.sampled_from([b"/", b"*", b"", b"x", b"/ HTTP/1.1\r\n\r\nGET /smuggled", b"/#a", b"/ a"]), _HOSTILE
    ),
    b":authority": st.one_of(
        st.sampled_from([b"any.test", b"a@any.test", b"any.test:x", b"any.test\r\nx: y"]), _HOSTILE
    ),
}


@st.composite
def header_lists(draw: st.DrawFn) -> Fields:
    """Lists that are mostly right, with one thing or another that is not."""
    usual = {b":method": b"POST", b":scheme": b"https", b":path": b"/", b":authority": b"any.test"}
    for name in draw(st.sets(st.sampled_from(sorted(usual)), max_size=2)):
        usual[name] = draw(_PSEUDO[name])
    listed = list(usual.items())
    more = draw(st.lists(st.tuples(_NAMES, _HOSTILE), max_size=4))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.permutations(listed + more))
    return listed + more


class HTTP2Tests(HTTP2TestCase):
    """Header lists that would mean something else as HTTP/1."""

    @examples(200)
    @given(st.lists(st.tuples(header_lists(), st.binary(max_size=20)), min_size=1, max_size=3))
    def test_header_lists(self, requests: list[tuple[Fields, bytes]]) -> None:
        """Each on a stream of its own, with a body behind."""
        world = World(resolver=AnyHost(), build=build_http2_factory)
        app = world.app("any", ["any.test"])
        client: RawClient = self.raw(world)
        for number, (listed, body) in enumerate(requests):
            stream_id = 2 * number + 1
            client.write(
                headers_frame(stream_id, listed), DataFrame(stream_id, data=body, flags=["END_STREAM"])
            )
            world.advance(0.01)
        assert_counted(self, world, app)
        self.assertEqual(
            [], [r.target for r in app.backend.requests if b"smuggled" in r.target.split(b"?")[0][:9]]
        )
