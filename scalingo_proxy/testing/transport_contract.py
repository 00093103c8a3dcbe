"""What a stream transport owes a protocol: one suite for every provider.

The same tests run on real TCP through a real reactor and on the transports of
:mod:`scalingo_proxy.testing.transports`; that is what makes the latter worth
testing with.  Bind it by mixing :class:`TransportContract` into a trial
``TestCase`` that says how to connect and how to wait::

    class MyTransportTests(TransportContract, TestCase):
        async def connect(self, near, far): ...
        async def until(self, condition): ...
        async def rest(self): ...
"""

from __future__ import annotations

from scalingo_proxy.testing.closing_contract import ClosingContract
from scalingo_proxy.testing.delivery_contract import DeliveryContract
from scalingo_proxy.testing.producer_contract import ProducerContract

__all__ = ["TransportContract"]


class TransportContract(DeliveryContract, ClosingContract, ProducerContract):
    """All of it: delivery, closing, producers."""
