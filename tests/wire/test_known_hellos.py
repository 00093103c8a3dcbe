"""Hellos that are known again: by all that decides, whatever else is in them, and not for ever."""

from __future__ import annotations

from random import Random

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire import known_hellos
from scalingo_proxy.wire.client_hello import ClientHello
from scalingo_proxy.wire.hello_message import whole_hello
from scalingo_proxy.wire.known_hellos import forget_unused_hellos, known_hello
from tests.corpus.hellos import load_hellos
from tests.wire.hello_builder import alpn, message, record, server_name, versions
from tests.wire.http1_strategies import examples, randoms

WHOLE = [each for each in load_hellos() if whole_hello(each.data) is not None]
KEY_SHARE, TICKET = 51, 35


def said(*extensions: tuple[int, bytes]) -> bytes:
    return record(message(*extensions, usual=False))


def hello_with(name: bytes, key: bytes, ticket: bytes = b"t" * 40) -> bytes:
    """What a program says to *name*, with that much else in it."""
    return said(server_name(name), (KEY_SHARE, key), versions(0x0304), alpn(b"h2"), (TICKET, ticket))


def is_learned(data: bytes) -> bool:
    """Whether *data* comes often enough to be known: the same object is given for it again."""
    for _ in range(4):
        known_hello(data)
    found = known_hello(data)
    return found is not None and found in known_hellos._hellos.recent.values()


def forget() -> None:
    forget_unused_hellos()
    forget_unused_hellos()


class KnownHelloTests(SynchronousTestCase):
    """:func:`known_hello` beside :func:`whole_hello`, which forgets nothing and knows nothing."""

    def setUp(self) -> None:
        self.addCleanup(forget)
        forget()

    def check(self, data: bytes) -> ClientHello | None:
        hello = known_hello(data)
        self.assertEqual(hello, whole_hello(data), data)
        return hello

    def test_corpus(self) -> None:
        """Every hello that is read as a whole is known the fifth time, and means what it meant."""
        for each in WHOLE:
            known_hellos._hellos.misses = 0
            self.assertTrue(is_learned(each.data), each.name)
            self.check(each.data)

    def test_other_keys(self) -> None:
        """The random, the session id and long extensions that decide nothing may be others."""
        data = hello_with(b"app.test", b"k" * 36)
        self.assertTrue(is_learned(data))
        other = bytearray(hello_with(b"app.test", b"K" * 36, b"T" * 40))
        other[11:43] = b"r" * 32
        self.assertIs(known_hello(bytes(other)), known_hello(data))

    def test_other_names(self) -> None:
        """Names of the same length, behind the same opening, are not taken for each other."""
        self.assertTrue(is_learned(hello_with(b"one.test", b"k" * 36)))
        for name in (b"two.test", b"one.tesT", b"one.te-t", b"one.tes.", b"-ne.test"):
            for _ in range(5):
                self.check(hello_with(name, b"k" * 36))

    def test_other_layout_behind_the_same_opening(self) -> None:
        """As long, and the same up to the middle of an extension that is longer in one than in the other."""
        names = server_name(b"app.test"), versions(0x0304), (9, b"n" * 90)
        one = said(*names, (KEY_SHARE, b"k" * 40), (TICKET, b"t" * 36))
        other = said(*names, (KEY_SHARE, b"k" * 36), (TICKET, b"t" * 40))
        for _ in range(6):
            for data in (one, other):
                self.assertEqual(self.check(data), whole_hello(data))
        for _ in range(4):
            self.check(one)
        changed = bytearray(one)
        changed[-41] ^= 1  # within the length of the second extension, by one layout a blank
        self.check(bytes(changed))

    @examples(500)
    @given(randoms)
    def test_damaged(self, by: Random) -> None:
        """Whatever is changed in a hello that is known, what comes of it is what comes of it alone."""
        hello = by.choice(WHOLE)
        known_hellos._hellos.misses = 0
        self.assertTrue(is_learned(hello.data))
        for _ in range(by.randint(1, 3)):
            at = by.randrange(len(hello.data))
            cut = by.randint(0, 2)
            put = by.randbytes(by.choice((cut, by.randint(0, 2))))
            damaged = hello.data[:at] + put + hello.data[at + cut :]
            for _ in range(by.randint(1, 5)):
                self.check(damaged)
        self.check(hello.data)

    def test_every_byte(self) -> None:
        """Each single byte of one of them; most of those that decide nothing leave it known."""
        data = next(each.data for each in WHOLE if each.name == "clients/curl-default")
        self.assertTrue(is_learned(data))
        kept = 0
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 0x41
            hello = self.check(bytes(changed))
            kept += hello is not None and known_hello(bytes(changed)) is known_hello(data)
        self.assertGreater(kept, 32 + 32 + 32)

    def test_forgotten(self) -> None:
        """What nobody sends any more is gone at the second turn."""
        data = hello_with(b"app.test", b"k" * 36)
        self.assertTrue(is_learned(data))
        forget_unused_hellos()
        self.check(data)
        self.assertEqual(len(known_hellos._hellos.recent), 1)
        forget()
        self.assertEqual(known_hellos._hellos.recent, {})
        self.assertEqual(known_hellos._layouts.recent, {})

    def test_bounded(self) -> None:
        """However many names and clients there are; and nothing is kept of long ones."""
        for number in range(1500):
            known_hellos._hellos.misses = 0
            data = hello_with(b"app-%d.test" % number, b"k" * 36)
            for _ in range(4):
                known_hello(data)
        self.assertLessEqual(len(known_hellos._hellos.recent), 1024)
        self.assertLessEqual(len(known_hellos._layouts.recent), 256)
        forget()
        long = said(*[(kind, b"x" * 30) for kind in range(60, 100)], server_name(b"a.b"), versions(0x0304))
        for _ in range(5):
            self.assertIsNotNone(self.check(long))
        self.assertEqual(known_hellos._hellos.recent, {})

    def test_in_vain(self) -> None:
        """Where no hello comes twice, only one in many is looked at twice."""
        for number in range(2000):
            known_hello(said(server_name(b"name-%d.test" % number), versions(0x0304)))
        self.assertLess(len(known_hellos._layouts._seen), 200)
