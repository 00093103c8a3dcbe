"""Host names in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from scalingo_proxy.testing.names import MemoryNameResolver


@implementer(IResolutionReceiver)
class Receiver:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N803
        self.resolution = resolutionInProgress

    def addressResolved(self, address: Any) -> None:
        self.told.append(address)

    def resolutionComplete(self) -> None:
        self.told.append("complete")


class MemoryNameResolverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.resolver = MemoryNameResolver(self.clock)
        self.resolver.names.update({"four.test": "10.0.0.4", "six.test": "2001:db8::6"})
        self.receiver = Receiver()

    def ask(self, name: str, **options: Any) -> list[Any]:
        self.resolver.resolveHostName(self.receiver, name, 80, **options)
        self.clock.advance(0)
        return self.receiver.told

    def test_provides_interface(self) -> None:
        """It is a resolver of host names, and its questions can be cancelled."""
        verifyObject(IHostnameResolver, self.resolver)
        self.ask("four.test")
        verifyObject(IHostResolution, self.receiver.resolution)

    def test_answers(self) -> None:
        """Names have the addresses given, and addresses are their own."""
        self.assertEqual(self.ask("four.test"), [IPv4Address("TCP", "10.0.0.4", 80), "complete"])
        self.receiver.told.clear()
        self.assertEqual(self.ask("six.test"), [IPv6Address("TCP", "2001:db8::6", 80), "complete"])
        self.receiver.told.clear()
        self.assertEqual(self.ask("192.0.2.1"), [IPv4Address("TCP", "192.0.2.1", 80), "complete"])

    def test_unknown(self) -> None:
        """An unknown name has no address."""
        self.assertEqual(self.ask("nowhere.test"), ["complete"])

    def test_wanted_types(self) -> None:
        """Addresses of other kinds than asked for are left out."""
        self.assertEqual(self.ask("six.test", addressTypes=[IPv4Address]), ["complete"])

    def test_never_at_once(self) -> None:
        """The answer comes in a later turn, after the delay, or never."""
        self.resolver.delay = 3
        self.assertEqual(self.ask("four.test"), [])
        self.clock.advance(3)
        self.assertEqual(len(self.receiver.told), 2)
        self.resolver.delay = None
        self.ask("four.test")
        self.assertEqual((len(self.receiver.told), self.clock.getDelayedCalls()), (2, []))

    def test_cancelled(self) -> None:
        """A question that was cancelled is not answered."""
        self.resolver.delay = 3
        self.ask("four.test")
        self.receiver.resolution.cancel()
        self.clock.advance(3)
        self.assertEqual(self.receiver.told, [])
