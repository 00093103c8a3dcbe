"""The file of the embedded store."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ConfigurationError, ResolverUnavailable
from scalingo_proxy.model import App, AppState, TopologyChange
from scalingo_proxy.resolvers.store_file import SCHEMA, StoreFile, record_text

A = App(
    "a",
    ["a.example", "*.a.example"],
    ["127.0.0.1:3000", "[::1]:3001"],
    state=AppState.PAUSED,
    timeouts={"queue": 5.0},
    certificate={"cert": "a.pem", "key": "a.key"},
)
B = App("b", ["xn--bcher-kva.example"])

NOBODY = 65534


class StoreFileCase(SynchronousTestCase):
    """Something to open, and a way to spoil it."""

    def setUp(self) -> None:
        self.path = self.mktemp()

    def store(self, path: str = "") -> StoreFile:
        store = StoreFile(path or self.path, lock_timeout=0.05)
        self.addCleanup(store.close)
        return store

    def opened(self) -> StoreFile:
        store = self.store()
        store.open()
        return store

    def write(self, *updated: App, removed: tuple[str, ...] = ()) -> None:
        store = self.opened()
        store.write(TopologyChange(updated, removed))
        store.close()

    def read(self) -> dict[str, App]:
        store = self.opened()
        apps = dict(store.load("store").apps)
        store.close()
        return apps

    def sql(self, *statements: str) -> None:
        """What somebody does to the file while no proxy has it."""
        connection = sqlite3.connect(self.path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    def refused(self, store: StoreFile | None = None) -> str:
        """The sentence with which opening or loading is refused."""
        store = store or self.store()

        def use() -> None:
            store.open()
            store.load("store")

        error = self.assertRaises(ConfigurationError, use)
        store.close()
        self.assertIn(repr(store._path), str(error))
        return str(error)


class KeptTests(StoreFileCase):
    """What is written is there later."""

    def test_new(self) -> None:
        """A missing file is made, and empty."""
        self.assertEqual(self.read(), {})
        self.assertTrue(os.path.isfile(self.path))

    def test_empty_file(self) -> None:
        """A file of no bytes is one too: a kill may leave that."""
        with open(self.path, "w"):
            pass
        self.assertEqual(self.read(), {})

    def test_round_trip(self) -> None:
        """Apps come back as they were, across closing and opening."""
        self.write(A, B)
        self.assertEqual(self.read(), {"a": A, "b": B})

    def test_replace_and_remove(self) -> None:
        """Later changes replace and remove; a name that is not there is no mistake."""
        self.write(A, B)
        changed = App("a", ["c.example"])
        self.write(changed, removed=("b", "nobody"))
        self.assertEqual(self.read(), {"a": changed})

    def test_domain_moves(self) -> None:
        """One change may move a domain between apps."""
        self.write(App("a", ["x.example"]), App("b", ["y.example"]))
        moved = {"a": App("a", ["y.example"]), "b": App("b", ["x.example"])}
        self.write(*moved.values())
        self.assertEqual(self.read(), moved)

    def test_label(self) -> None:
        """The routes name the resolver."""
        self.write(A)
        route = self.opened().load("mine").lookup("a.example")
        assert route is not None
        self.assertEqual(route.resolver, "mine")

    def test_side_files_vanish(self) -> None:
        """A closed store is one file."""
        self.write(A)
        self.assertFalse(os.path.exists(self.path + "-wal"))

    def test_relative_path(self) -> None:
        """A relative path is taken from the current folder at the time of opening, for good."""
        folder, elsewhere = self.mktemp(), self.mktemp()
        os.mkdir(folder)
        os.mkdir(elsewhere)
        self.addCleanup(os.chdir, os.getcwd())
        elsewhere = os.path.abspath(elsewhere)
        os.chdir(folder)
        store = self.store("relative.db")
        store.open()
        folder = os.getcwd()
        os.chdir(elsewhere)
        store.write(TopologyChange((A,)))
        store.close()
        self.assertEqual((os.listdir(folder), os.listdir(elsewhere)), (["relative.db"], []))

    def test_strange_name(self) -> None:
        """A name that SQLite would take for something else is a file name."""
        self.path = ":memory:"
        self.write(A)
        self.assertEqual(self.read(), {"a": A})
        os.remove(":memory:")


class ModeTests(StoreFileCase):
    """Nobody but the owner may read it."""

    def mode(self, path: str) -> int:
        return stat.S_IMODE(os.stat(path).st_mode)

    def test_new(self) -> None:
        """The file and what SQLite puts beside it are the owner's, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        store = self.opened()
        store.write(TopologyChange((A,)))
        self.assertEqual((self.mode(self.path), self.mode(self.path + "-wal")), (0o600, 0o600))

    def test_old(self) -> None:
        """A store that others may read is closed to them."""
        self.write(A)
        os.chmod(self.path, 0o644)
        self.opened()
        self.assertEqual(self.mode(self.path), 0o600)

    def test_foreign(self) -> None:
        """A file that is refused keeps its mode and every byte."""
        self.sql("CREATE TABLE cookies (name TEXT)")
        os.chmod(self.path, 0o644)
        with open(self.path, "rb") as file:
            before = file.read()
        self.refused()
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), before)
        self.assertEqual(self.mode(self.path), 0o644)


class RefusedTests(StoreFileCase):
    """Files that cannot be used, each with a sentence that says why."""

    def test_folder_missing(self) -> None:
        """The folder has to be there."""
        self.assertIn("No such file or directory", self.refused(self.store(self.path + "/no/store.db")))

    def test_folder(self) -> None:
        """A folder is not a file."""
        os.mkdir(self.path)
        self.assertIn("it is not a file", self.refused())

    def as_nobody(self) -> None:
        """Root may do anything, so where the tests run as root, go on as somebody who may not."""
        if os.geteuid() == 0:
            self.addCleanup(os.seteuid, 0)
            os.seteuid(NOBODY)

    def folder(self, mode: int) -> str:
        """A folder that everybody gets to."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.path = os.path.join(folder, "store.db")
        os.chmod(folder, mode)
        return folder

    def test_read_only_folder(self) -> None:
        """A place where nothing can be made is told as the system tells it."""
        self.folder(0o555)
        self.as_nobody()
        self.assertIn("Permission denied", self.refused())

    def test_folder_became_read_only(self) -> None:
        """So is a store that may be written itself, but nothing beside it."""
        folder = self.folder(0o777)
        self.as_nobody()
        self.write(A)
        os.seteuid(os.getuid())
        os.chmod(folder, 0o555)
        self.as_nobody()
        self.assertIn("it or its folder is read-only", self.refused())

    def test_read_only_file(self) -> None:
        """A store that cannot be written is refused when it is opened, not at the first change."""
        self.folder(0o777)
        self.as_nobody()
        self.write(A)
        os.chmod(self.path, 0o400)
        self.assertIn("it or its folder is read-only", self.refused())

    def test_shared_by_somebody_else(self) -> None:
        """A store that others may read, and that cannot be closed to them, is refused."""
        self.write(A)
        os.chmod(self.path, 0o666)

        def chmod(path: str, mode: int) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        self.patch(os, "chmod", chmod)
        self.assertIn("other users may read it", self.refused())

    def test_not_a_database(self) -> None:
        """Some other file."""
        with open(self.path, "w") as file:
            file.write("apps:\n- hello\n" * 100)
        self.assertIn("it is not a database", self.refused())

    def test_foreign(self) -> None:
        """Another program's database."""
        self.sql("CREATE TABLE cookies (name TEXT)")
        self.assertIn("it belongs to another program", self.refused())

    def test_newer(self) -> None:
        """A store that a newer version has written."""
        self.write(A)
        self.sql(f"PRAGMA user_version = {SCHEMA + 1}")
        self.assertIn(
            f"a newer version of scalingo_proxy wrote it (format {SCHEMA + 1}, this one knows {SCHEMA})",
            self.refused(),
        )

    def test_damaged(self) -> None:
        """Pages that were overwritten."""
        self.write(*(App(f"app-{number}", [f"{number}.example"]) for number in range(2000)))
        with open(self.path, "r+b") as file:
            file.seek(3 * 4096)
            file.write(b"\xff" * 4096 * 4)
        self.assertIn("it is damaged", self.refused())

    def test_cut(self) -> None:
        """A copy that was cut short."""
        self.write(*(App(f"app-{number}", [f"{number}.example"]) for number in range(2000)))
        os.truncate(self.path, os.path.getsize(self.path) // 2)
        self.assertIn("it is damaged", self.refused())

    def test_table_missing(self) -> None:
        """A store of ours without its table."""
        self.write(A)
        self.sql("DROP TABLE apps")
        self.assertIn("no such table: apps", self.refused())

    def test_in_use(self) -> None:
        """A store that another one has open; it can be opened when that one lets go."""
        first = self.opened()
        self.assertIn("another process has it open", self.refused())
        first.write(TopologyChange((A,)))
        first.close()
        self.assertEqual(self.read(), {"a": A})

    def test_locked_by_a_reader(self) -> None:
        """A store that some other program is busy with."""
        self.write(A)
        connection = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(connection.close)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        self.assertIn("another process has it open", self.refused())

    def test_in_use_keeps_its_locks(self) -> None:
        """Opening a store twice in one process does not unlock it for other processes (POSIX would)."""
        self.opened()
        self.refused()
        program = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM apps')"
        other = subprocess.run([sys.executable, "-c", program, self.path], stderr=subprocess.PIPE, text=True)
        self.assertIn("database is locked", other.stderr)


class DamagedRecordTests(StoreFileCase):
    """Records that somebody else has put in."""

    def spoilt(self, name: str, record: str) -> str:
        self.write(B)
        self.sql(f"INSERT INTO apps VALUES ('{name}', {record})")
        return self.refused()

    def test_not_json(self) -> None:
        """A record that is no JSON is named."""
        self.assertIn("holds a damaged record of app 'bad': it is not JSON", self.spoilt("bad", "'{oops'"))

    def test_not_text(self) -> None:
        """Nor is a number, or bytes."""
        self.assertIn("app 'bad'", self.spoilt("bad", "17"))
        self.path = self.mktemp()
        self.assertIn("app 'bad'", self.spoilt("bad", "x'ff00'"))

    def test_not_utf8(self) -> None:
        """Text that is none is told by SQLite."""
        self.assertIn("UTF-8", self.spoilt("bad", "CAST(x'22ff22' AS TEXT)"))

    def test_wrong_key(self) -> None:
        """A record that says what no record may say is named, with the place in it."""
        sentence = self.spoilt("bad", '\'{"name": "bad", "domians": []}\'')
        self.assertIn("app 'bad': domians", sentence)

    def test_other_name(self) -> None:
        """A record under the name of another app."""
        self.assertIn("stored under another name", self.spoilt("bad", '\'{"name": "good"}\''))

    def test_every_one(self) -> None:
        """All damaged records are named at once."""
        self.write(B)
        self.sql("INSERT INTO apps VALUES ('x', '1')", "INSERT INTO apps VALUES ('y', '{')")
        sentence = self.refused()
        self.assertIn("app 'x'", sentence)
        self.assertIn("app 'y'", sentence)

    def test_domain_twice(self) -> None:
        """Two records that claim one domain."""
        sentence = self.spoilt("c", f"'{record_text(App('c', B.domains))}'")
        self.assertIn("two of its apps claim one domain", sentence)
        self.assertIn(B.domains[0], sentence)


class WriteTests(StoreFileCase):
    """Changes that cannot be written."""

    def test_unreadable_app(self) -> None:
        """An app that could not be read again is refused, and nothing of its change is written."""
        store = self.opened()
        bad = TopologyChange((A, App("bad name", ["bad.example"])))
        error = self.assertRaises(ConfigurationError, store.write, bad)
        self.assertIn("bad name", str(error))
        self.assertEqual(dict(store.load("store").apps), {})

    def test_disk_full(self) -> None:
        """A full disk refuses the change; a later one that fits is taken."""
        self.write(A)
        store = self.opened()
        assert store._connection is not None
        store._connection.execute("PRAGMA max_page_count = 2")
        many = TopologyChange(tuple(App(f"app-{n}", [f"{n}.example"]) for n in range(500)), ("a",))
        error = self.assertRaises(ResolverUnavailable, store.write, many)
        self.assertIn("cannot be written: the disk is full", error.detail)
        self.assertEqual(list(store.load("store").apps), ["a"])
        store._connection.execute("PRAGMA max_page_count = 100000")
        store.write(many)
        self.assertEqual(len(store.load("store").apps), 500)

    def test_closed(self) -> None:
        """A store that is not open is a mistake of the program."""
        self.assertRaises(RuntimeError, self.store().write, TopologyChange((A,)))
