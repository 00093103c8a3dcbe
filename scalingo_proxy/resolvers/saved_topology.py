"""The last good topology of a feed, in a file: for a restart while the feed is down.

Written in a thread, as a whole or not at all; changes that come quickly one
after another are written as one.  Only its owner may read the file, because
records may hold what is nobody else's business.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.model import App
from scalingo_proxy.resolvers.app_record import app_from_record, record_from_app

__all__ = ["Saved", "SavedTopology"]

_log = Logger()

#: How long a change may wait for others to be written with it.
SAVE_SECONDS = 1.0

_FORMAT = "scalingo-proxy topology 1"


@attrs.frozen
class Saved:
    """What a file holds.

    :ivar synced_at: when it was last known to be true, seconds since the epoch.
    """

    apps: tuple[App, ...]
    synced_at: float


class SavedTopology:
    """Keeps one topology in the file *path*.

    :param reactor: its threads do the work, its clock says when.
    """

    def __init__(self, path: str, reactor: Any) -> None:
        self.path = path
        self._reactor = reactor
        self._wanted: tuple[Mapping[str, App], float] | None = None
        self._call: IDelayedCall | None = None
        self._writing: Deferred[Any] | None = None

    def load(self) -> Deferred[Saved | None]:
        """What the file holds; ``None`` when there is none, or none that can be read.

        One that cannot be read is told to the log and left alone: without it
        the proxy starts as if for the first time.
        """
        return self._in_thread(_read, self.path).addErrback(self._unreadable)

    def save(self, apps: Mapping[str, App], synced_at: float) -> None:
        """Write *apps* soon."""
        self._wanted = (apps, synced_at)
        if self._call is None and self._writing is None:
            self._call = self._reactor.callLater(SAVE_SECONDS, self._write)

    def flush(self) -> Deferred[Any]:
        """Write what waits now; fires when nothing is left to do."""
        if self._call is not None:
            self._call.cancel()
            self._write()
        if self._writing is None:
            return succeed(None)
        over: Deferred[Any] = Deferred()
        self._writing.addCallback(lambda _: self.flush().chainDeferred(over))
        return over

    def _write(self) -> None:
        self._call = None
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            apps, synced_at = wanted
            self._writing = self._in_thread(_replace, self.path, apps.values(), synced_at)
            self._writing.addErrback(self._unwritable).addCallback(self._written)

    def _written(self, _: Any) -> None:
        self._writing = None
        if self._wanted is not None:
            self.save(*self._wanted)

    def _in_thread(self, function: Any, *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *args)

    def _unreadable(self, failure: Failure) -> None:
        error = failure.value
        _log.error("the topology saved in {path} cannot be used: {error}", path=self.path, error=error)

    def _unwritable(self, failure: Failure) -> None:
        _log.error("the topology cannot be saved in {path}: {error}", path=self.path, error=failure.value)


def _read(path: str) -> Saved | None:
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        return None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError("it is not a saved topology")
    return Saved(tuple(app_from_record(record) for record in document["apps"]), float(document["synced_at"]))


def _replace(path: str, apps: Iterable[App], synced_at: float) -> None:
    document = {"format": _FORMAT, "synced_at": synced_at, "apps": [record_from_app(app) for app in apps]}
    folder, name = os.path.split(os.path.abspath(path))
    # mkstemp makes it with mode 0600, whatever the umask is.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
