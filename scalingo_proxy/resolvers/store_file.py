"""The file of the embedded store: app records, certificates and lone documents, each in a SQLite table.

Everything here blocks; :mod:`.store` does it in a thread of its own.  It knows
nothing of Twisted, and not what is served from the apps.

One process has the file at a time.  Whoever opens it holds its lock until it
closes the file or dies, because a second writer would go unnoticed by the
first one's table in memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from scalingo_proxy.errors import ConfigurationError, DomainTaken, Mistake, ResolverUnavailable
from scalingo_proxy.model import App, Certificate, CertificateChange, TopologyChange
from scalingo_proxy.resolvers.app_record import app_from_record, record_from_app
from scalingo_proxy.routing.table import RouteTable

__all__ = ["SCHEMA", "StoreFile", "record_text"]

#: The version of what is inside, told as SQLite's ``user_version``.
SCHEMA = 3

# "SPXY": how a store is told from any other SQLite file.
_APPLICATION_ID = 0x53505859

# What brings a file from each version to the next; 0 is an empty one.
_STEPS = (
    # One b-tree and no index beside it: loading reads every page there is, so
    # that a damaged one is found at the start and not in the middle of a day.
    (
        "CREATE TABLE apps (name TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID",
        f"PRAGMA application_id = {_APPLICATION_ID}",
    ),
    (
        (
            "CREATE TABLE certificates"
            " (name TEXT NOT NULL PRIMARY KEY, chain BLOB NOT NULL, key BLOB NOT NULL) WITHOUT ROWID"
        ),
    ),
    ("CREATE TABLE documents (name TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID",),
)

_SIDE_FILES = ("-wal", "-shm", "-journal")


class StoreFile:
    """One store on the disk; used by one thread, and blocking.

    :param path: relative paths are taken from the folder that is current at
        the time of :meth:`open`.
    :param lock_timeout: how long to wait for another process to let go, in
        seconds.
    """

    def __init__(self, path: str, lock_timeout: float = 5.0) -> None:
        self._path = path
        self._lock_timeout = lock_timeout
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Take the file over; make it when there is none.

        :raises ConfigurationError: when it is not a store of ours, damaged,
            written by a newer version, read-only or in use, or when it cannot
            be made; a file that is not ours is left as it was.
        """
        # Whoever changes the current folder later must not move the side files away.
        file = os.path.abspath(self._path)
        with self._explained():
            self._create(file)
            connection = sqlite3.connect(file, timeout=self._lock_timeout, isolation_level=None)
            try:
                self._take_over(connection)
                self._restrict(file)
            except BaseException:
                connection.close()
                raise
        self._connection = connection

    def load(self, resolver_name: str) -> RouteTable:
        """The table of all apps in the store.

        :raises ConfigurationError: when records are damaged; it names each.
        """
        with self._explained():
            rows = self._open_connection().execute("SELECT name, record FROM apps").fetchall()
        apps: list[App] = []
        mistakes: list[Mistake] = []
        for name, text in rows:
            try:
                apps.append(_app(name, text))
            except ConfigurationError as error:
                mistakes += [self._damaged(name, str(mistake)) for mistake in error.mistakes]
            except (ValueError, TypeError, RecursionError) as error:
                mistakes.append(self._damaged(name, f"it is not JSON ({error})"))
        if mistakes:
            raise ConfigurationError(mistakes)
        try:
            return RouteTable.empty(resolver_name).changed(TopologyChange(tuple(apps)))
        except DomainTaken as error:
            raise self._unusable(f"two of its apps claim one domain ({error})") from None

    def load_certificates(self, read: Callable[[str, bytes, bytes], Certificate]) -> tuple[Certificate, ...]:
        """All certificates in the store, by *read* from their name, chain and key.

        :raises ConfigurationError: when some are damaged; it names each.
        """
        with self._explained():
            rows = self._open_connection().execute("SELECT name, chain, key FROM certificates").fetchall()
        certificates: list[Certificate] = []
        mistakes: list[Mistake] = []
        for name, chain, key in rows:
            try:
                certificates.append(read(name, chain, key))
            except (ValueError, TypeError) as error:
                sentence = f"holds a damaged certificate {name!r}: {error}"
                mistakes.append(Mistake("", f"the store {self._path!r} {sentence}"))
        if mistakes:
            raise ConfigurationError(mistakes)
        return tuple(certificates)

    def load_documents(self) -> dict[str, Any]:
        """What is kept beside apps and certificates, by name: values as JSON has them.

        :raises ConfigurationError: when one is damaged.
        """
        with self._explained():
            rows = self._open_connection().execute("SELECT name, record FROM documents").fetchall()
        try:
            return {name: json.loads(text) for name, text in rows}
        except (ValueError, TypeError, RecursionError) as error:
            raise self._unusable(f"it holds a damaged document: {error}") from None

    def write_document(self, name: str, value: Any) -> None:
        """Keep *value* under *name*, instead of what is there; ``None`` forgets it.  As :meth:`write`."""
        rows = [] if value is None else [(name, json.dumps(value, ensure_ascii=False))]
        self._commit("documents", () if rows else (name,), rows)

    def write(self, change: TopologyChange) -> None:
        """Bring *change* to the disk, as one commit.

        When it returns, the change survives a kill and a power failure.

        :raises ConfigurationError: an app could not be read again.
        :raises ResolverUnavailable: the disk is full or fails.
            Nothing is changed in either case.
        """
        rows = [(app.name, record_text(app)) for app in change.updated]
        self._commit("apps", change.removed, rows)

    def write_certificates(self, change: CertificateChange) -> None:
        """As :meth:`write`, for certificates."""
        self._commit(
            "certificates", change.removed, [(each.name, each.chain, each.key) for each in change.updated]
        )

    def _commit(self, table: str, removed: Iterable[str], rows: list[tuple[Any, ...]]) -> None:
        connection = self._open_connection()
        places = ", ".join("?" * len(rows[0])) if rows else ""
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(f"DELETE FROM {table} WHERE name = ?", [(name,) for name in removed])
                if rows:
                    connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({places})", rows)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise ResolverUnavailable(
                f"the store {self._path!r} cannot be written: {_reason(error)}"
            ) from error

    def close(self) -> None:
        """Bring everything into the main file and let it go; the side files vanish."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # -- opening ---------------------------------------------------------------

    def _create(self, file: str) -> None:
        """Make sure that there is a file, which its owner alone may read."""
        try:
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            # Not opened here: closing it again would drop the locks that this
            # process may have on it already through SQLite (POSIX).
            if not stat.S_ISREG(os.stat(file).st_mode):
                raise self._unusable("it is not a file") from None
            # SQLite would open it all the same, and fail later and less clearly.
            if not os.access(file, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                raise self._unusable(_REASONS[sqlite3.SQLITE_READONLY]) from None
        else:
            _flush_folder(os.path.dirname(file))

    def _take_over(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = self._version(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        # In WAL mode NORMAL would lose acknowledged writes on a power failure.
        connection.execute("PRAGMA synchronous = FULL")
        # A key that was exchanged or removed must not be readable in the file.
        connection.execute("PRAGMA secure_delete = ON")
        # Also when there is nothing to create: it takes the lock, and finds
        # out now whether the file can be written at all.
        connection.execute("BEGIN IMMEDIATE")
        for statements in _STEPS[version:]:
            for statement in statements:
                connection.execute(statement)
        if version < SCHEMA:
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")

    def _version(self, connection: sqlite3.Connection) -> int:
        """How it is laid out, 0 when nothing is in it yet; refuses what is not ours before touching it."""
        application, version, tables = connection.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
            " FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if (application, version, tables) == (0, 0, 0):
            return 0
        if application != _APPLICATION_ID:
            raise self._unusable("it belongs to another program")
        if version > SCHEMA:
            raise self._unusable(
                f"a newer version of scalingo_proxy wrote it (format {version}, this one knows {SCHEMA})"
            )
        return int(version)

    def _restrict(self, file: str) -> None:
        """Take the file from all but its owner: private keys are in it, too.

        SQLite gives side files the mode of the main one, but some may be there.
        """
        for path in (file, *(file + ending for ending in _SIDE_FILES)):
            try:
                if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
                    os.chmod(path, 0o600)
            except FileNotFoundError:
                continue
            except PermissionError:
                raise self._unusable("other users may read it, and it belongs to one of them") from None

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("the store is not open")
        return self._connection

    # -- what is told when it fails --------------------------------------------

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unusable(_reason(error)) from error
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error

    def _unusable(self, reason: str) -> ConfigurationError:
        return ConfigurationError([Mistake("", f"the store {self._path!r} cannot be used: {reason}")])

    def _damaged(self, name: object, reason: str) -> Mistake:
        return Mistake("", f"the store {self._path!r} holds a damaged record of app {name!r}: {reason}")


def record_text(app: App) -> str:
    """The record of *app* as it is stored.

    :raises ConfigurationError: when it could not be read again.
    """
    record = record_from_app(app)
    app_from_record(record)
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _app(name: Any, text: Any) -> App:
    app = app_from_record(json.loads(text))
    if app.name != name:
        raise ConfigurationError([Mistake("name", f"{app.name!r} is stored under another name")])
    return app


def _flush_folder(folder: str) -> None:
    """Make a new name in it last: a power failure must not take the whole file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_REASONS = {
    sqlite3.SQLITE_BUSY: "another process has it open",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup, or move it away to start empty",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_NOTADB: "it is not a database",
    sqlite3.SQLITE_READONLY: "it or its folder is read-only",
}


def _reason(error: sqlite3.Error) -> str:
    # The low byte is the primary code; the rest says more than people need.
    return _REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, str(error))
