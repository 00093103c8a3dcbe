"""Tests of scalingo_proxy.services.access_control and admin_access."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from scalingo_proxy.errors import ConfigurationError, ResolverUnavailable
from scalingo_proxy.resolvers.store import StoreResolver
from scalingo_proxy.routing.policies import Policies
from scalingo_proxy.services.access_control import AccessControl
from scalingo_proxy.services.admin_access import AccessApi
from scalingo_proxy.services.admin_routes import Call


class AccessControlTests(TestCase):
    """The lists of the file and those that were told, together."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    async def control(self, **lists: Any) -> AccessControl:
        self.store = StoreResolver(os.path.join(self.folder, "state.db"), reactor)
        self.policies = Policies()
        control = AccessControl(policies=self.policies, store=self.store, reactor=reactor, **lists)
        await self.store.start()
        self.addCleanup(self.store.stop)
        control.store_loaded()
        return control

    def refusals(self, *addresses: str) -> list[str]:
        return [self.policies.access.refusal(address) for address in addresses]

    def test_file(self) -> Deferred[None]:
        """What the file and its lists say holds at once, and is replaced as a whole."""

        async def test() -> None:
            control = await self.control(deny=("10.0.0.0/8", "::1/128"))
            self.assertEqual(self.refusals("10.1.1.1", "::1", "192.0.2.1"), ["deny", "deny", ""])
            await control.replace_file((), ("10.0.0.0/8",))
            self.assertEqual(self.refusals("10.1.1.1", "::1"), ["", "allow"])

        return Deferred.fromCoroutine(test())

    def test_told(self) -> Deferred[None]:
        """What is told adds to the file, survives a restart, and can be taken back."""

        async def test() -> None:
            control = await self.control(deny=("10.0.0.0/8",))
            told = await control.put({"deny": ["192.0.2.1", "2001:db8::/32"]})
            self.assertEqual(told, {"deny": ["192.0.2.1/32", "2001:db8::/32"], "allow": []})
            self.assertEqual(self.refusals("10.1.1.1", "192.0.2.1", "2001:db8::1"), ["deny"] * 3)
            await self.store.stop()
            control = await self.control(deny=("10.0.0.0/8",))
            self.assertEqual(self.refusals("10.1.1.1", "192.0.2.1", "2001:db8::1"), ["deny"] * 3)
            await control.put({})
            self.assertEqual(self.refusals("10.1.1.1", "192.0.2.1"), ["deny", ""])
            self.assertEqual(control.told, {"deny": [], "allow": []})

        return Deferred.fromCoroutine(test())

    def test_mistakes(self) -> Deferred[None]:
        """Every one is named, and nothing has changed."""

        async def test() -> None:
            control = await self.control()
            await control.put({"deny": ["192.0.2.1"]})
            with self.assertRaises(ConfigurationError) as caught:
                await control.put({"deny": ["x", "10.0.0.1/8"], "alow": []})
            paths = [mistake.path for mistake in caught.exception.mistakes]
            self.assertEqual(paths, ["deny[0]", "deny[1]", "alow"])
            self.assertEqual(self.refusals("192.0.2.1"), ["deny"])

        return Deferred.fromCoroutine(test())

    def test_store_closed(self) -> Deferred[None]:
        """What cannot be kept is not put into effect."""

        async def test() -> None:
            control = await self.control()
            await self.store.stop()
            with self.assertRaises(ResolverUnavailable):
                await control.put({"deny": ["192.0.2.1"]})
            self.assertEqual(self.refusals("192.0.2.1"), [""])

        return Deferred.fromCoroutine(test())

    def test_api(self) -> Deferred[None]:
        """What was read may be put back."""

        async def test() -> None:
            control = await self.control(deny=("10.0.0.0/8",))
            get, put = AccessApi(control).routes()

            def call(method: str, body: Any = None) -> Call:
                return Call(method, {}, {}, body)

            answer: Any = get.operation(call("GET"))
            self.assertIn(b'"file": {"deny": 1, "allow": 0}', answer.body)
            written: Any = await put.operation(call("PUT", {"deny": ["::1"], "file": {"deny": 1}}))
            self.assertIn(b'"deny": ["::1/128"]', written.body)

        return Deferred.fromCoroutine(test())
