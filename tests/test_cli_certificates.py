"""Tests for :mod:`scalingo_proxy.cli_certificates`."""

from __future__ import annotations

from typing import Any

from scalingo_proxy.protocols.tls_authority import Authority
from tests.test_cli import AppsCase, CommandCase


class CertificatesCase(AppsCase):
    """Certificates in files, and a running admin API."""

    def setUp(self) -> None:
        super().setUp()
        self.now = self.world.wall_clock()
        self.authority = Authority.create("root", self.now)

    def files(self, *domains: str, **options: Any) -> tuple[str, ...]:
        """The options that name a new certificate and its key."""
        chain, key = self.authority.issue(domains, self.now, **options)
        return "--cert", self.file(chain.decode(), ".pem"), "--key", self.file(key.decode(), ".key")


class SetTests(CertificatesCase):
    """``certificate set``."""

    async def test_new_and_exchanged(self) -> None:
        """One line says what it covers, and for how long."""
        run = await self.command(
            "certificate", "set", "a", *self.files("a.example", "*.a.example", days=30.5)
        )
        self.assertEqual(
            (0, "a created: a.example, *.a.example, 30 days left\n", ""), (run.status, run.out, run.err)
        )
        run = await self.command("certificate", "set", "a", *self.files("b.example", days=9.5))
        self.assertEqual("a exchanged: b.example, 9 days left\n", run.out)
        self.assertEqual(("b.example",), self.world.store.certificates.certificates()["a"].domains)

    async def test_json(self) -> None:
        """The answer of the API as it is, without the key."""
        run = await self.command("certificate", "set", "a", *self.files("a.example"), "--json")
        self.assertEqual(["a.example"], run.document["domains"])
        self.assertNotIn("key", run.document)

    async def test_refused(self) -> None:
        """Every mistake on a line of its own."""
        options = self.files("a.example")
        swapped = ("--cert", options[3], "--key", options[1])
        run = await self.command("certificate", "set", "a", *swapped)
        self.assertEqual((1, ""), (run.status, run.out))
        self.assertEqual(
            "certificate: is no certificate but a private key\nkey: is no private key but a certificate\n",
            run.err,
        )

    async def test_missing_file(self) -> None:
        """The file that is not there is named, and nobody asked."""
        run = await self.command("certificate", "set", "a", "--cert", "nowhere.pem", "--key", "x")
        self.assertEqual((1, "nowhere.pem: No such file or directory\n"), (run.status, run.err))


class ListTests(CertificatesCase):
    """``certificates``."""

    async def test_a_table(self) -> None:
        """What expires first stands on top."""
        for name, days in (("late", 60.5), ("soon", 3.5)):
            await self.command("certificate", "set", name, *self.files(f"{name}.example", days=days))
        run = await self.command("certificates")
        heads, soon, late = (line.split() for line in run.out.splitlines())
        self.assertEqual(["NAME", "EXPIRES", "DAYS", "SOURCE", "DOMAINS"], heads)
        self.assertEqual(["soon", "3", "store", "soon.example"], [soon[0], *soon[2:]])
        self.assertEqual(["late", "60", "store", "late.example"], [late[0], *late[2:]])
        run = await self.command("certificates", "-q", "late", "--json")
        self.assertEqual(["late"], [each["name"] for each in run.document["certificates"]])

    async def test_none(self) -> None:
        """Only the heads."""
        run = await self.command("certificates")
        self.assertEqual("NAME  EXPIRES  DAYS  SOURCE  DOMAINS\n", run.out)


class RemoveTests(CertificatesCase):
    """``certificate rm``."""

    async def test_removed(self) -> None:
        """It is gone."""
        await self.command("certificate", "set", "a", *self.files("a.example"))
        run = await self.command("certificate", "rm", "a")
        self.assertEqual("certificate a is removed; open connections stay\n", run.out)
        run = await self.command("certificate", "rm", "a", "--json")
        self.assertEqual((1, "unknown-certificate"), (run.status, run.document["error"]["code"]))

    async def test_in_use(self) -> None:
        """One that an app asks for stays."""
        await self.command("certificate", "set", "a", *self.files("a.example"))
        record = self.file('{"domains": ["a.example"], "certificate": "a"}')
        await self.command("app", "set", "hello", "--file", record)
        run = await self.command("certificate", "rm", "a")
        self.assertEqual(1, run.status)
        self.assertIn("is asked for by hello", run.err)


class UsageTests(CommandCase):
    """The command line itself."""

    def test_wrong_usage_is_2(self) -> None:
        """Said by argparse."""
        for words in (
            ("certificate",),
            ("certificate", "set", "a"),
            ("certificate", "set", "a", "--cert", "x"),
        ):
            self.assertEqual(2, self.run_command(*words).status, words)
