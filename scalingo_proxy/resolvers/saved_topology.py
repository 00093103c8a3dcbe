"""The last good topology of a feed, in a file: for a restart while the feed is down.

Written in a thread, as a whole or not at all; changes that come quickly one
after another are written as one.  Only its owner may read the file, because
records may hold what is nobody else's business.
"""

from __future__ import annotations

import json
import os
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
#: Writing takes this part of the time at most: a large platform that changes all
#: the time is written less often.
_SHARE = 0.1

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
        self._pause = SAVE_SECONDS
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
            self._call = self._reactor.callLater(self._pause, self._write)

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
            began_at = self._reactor.seconds()
            self._writing = self._in_thread(_replace, self.path, apps.values(), synced_at)
            self._writing.addErrback(self._unwritable).addCallback(self._written, began_at)

    def _written(self, _: Any, began_at: float) -> None:
        self._writing = None
        self._pause = max(SAVE_SECONDS, (self._reactor.seconds() - began_at) / _SHARE)
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
    text = json.dumps(document)  # dumps and not dump, which is many times slower
    folder, name = os.path.split(os.path.abspath(path))
    # One name, so that a process that dies in the middle leaves one file at most.
    unfinished = os.path.join(folder, f".{name}.unfinished")
    with suppress(FileNotFoundError):
        os.unlink(unfinished)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished)
        raise
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
