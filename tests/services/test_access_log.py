"""Tests for :mod:`scalingo_proxy.services.access_log`."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scalingo_proxy.errors import ConfigurationError
from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.services.access_log import (
    BATCH_LINES,
    FLUSH_SECONDS,
    REPORT_SECONDS,
    STOP_SECONDS,
    AccessLog,
)
from scalingo_proxy.services.line_writer import LineWriter

#: How long a test waits for the writing thread before it gives up.
PATIENCE = 30.0


class ClockAndThreads(Clock):
    """A clock that also takes calls from other threads, and makes them when told to."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[tuple[Callable[..., Any], tuple[object, ...]]] = SimpleQueue()

    def callFromThread(self, callable: Callable[..., Any], *args: object) -> None:  # noqa: A002
        self._calls.put((callable, args))

    def wait_for_thread(self) -> None:
        """Wait for one call from another thread, and make it."""
        callable_, args = self._calls.get(timeout=PATIENCE)
        callable_(*args)


def a_record(path: str = "/") -> Record:
    """A finished exchange."""
    record = Record(1.0, 1.0, "127.0.0.1", "http")
    record.path = path
    record.finished_at = 1.5
    return record


class AccessLogCase(SynchronousTestCase):
    """What the tests below share."""

    def setUp(self) -> None:
        self.reactor = ClockAndThreads()

    def started(self, destination: str | None = None, **settings: Any) -> AccessLog:
        """A running log that writes to *destination*, by default a new file at ``self.path``."""
        self.path = destination or os.path.abspath(self.mktemp())
        log = AccessLog(self.reactor, destination=self.path, **settings)
        log.startService()
        return log

    def stop(self, log: AccessLog) -> None:
        """Stop, and wait until everything is written."""
        stopped = log.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        self.reactor.wait_for_thread()
        self.successResultOf(stopped)

    def paths_written(self, path: str | None = None) -> list[str]:
        """The path= of each line in the file."""
        with open(path or self.path) as lines:
            return [line.partition(" path=")[2].partition(" ")[0] for line in lines]


class AccessLogTests(AccessLogCase):
    """From records to a file or a pipe."""

    def test_interface(self) -> None:
        """It is an observer."""
        verifyObject(IObserver, AccessLog(self.reactor))

    def test_written_together(self) -> None:
        """Records wait for each other a short while, and one timer writes them all."""
        log = self.started()
        for path in ("/a", "/b", "/c"):
            log.exchange_finished(a_record(path))
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(FLUSH_SECONDS)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.stop(log)
        self.assertEqual(self.paths_written(), ["/a", "/b", "/c"])

    def test_full_batch_does_not_wait(self) -> None:
        """A full batch is written at once, and leaves no timer behind."""
        log = self.started()
        for number in range(BATCH_LINES):
            log.exchange_finished(a_record(f"/{number}"))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.stop(log)
        self.assertEqual(len(self.paths_written()), BATCH_LINES)

    def test_stop_writes_what_is_left(self) -> None:
        """Stopping writes what is pending and leaves no timer behind."""
        log = self.started()
        log.exchange_finished(a_record("/last"))
        self.stop(log)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.paths_written(), ["/last"])

    def test_stop_gives_up(self) -> None:
        """A pipe that nobody reads delays the stop by a few seconds at most."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        log = self.started("-", standard_output=writing)
        os.close(writing)  # the log has its own copy
        for _ in range(BATCH_LINES):
            log.exchange_finished(a_record("/" * 1000))
        stopped = log.stopService()
        assert stopped is not None
        self.reactor.advance(STOP_SECONDS - 0.1)
        self.assertNoResult(stopped)
        self.reactor.advance(0.1)
        self.successResultOf(stopped)

    def test_standard_output(self) -> None:
        """``-`` writes to standard output, which stays open when the log stops."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        log = self.started("-", standard_output=writing)
        log.exchange_finished(a_record("/x"))
        self.stop(log)
        self.assertIn(b" path=/x ", os.read(reading, 1000))
        os.fstat(writing)

    def test_format_and_query(self) -> None:
        """Format and query are as configured."""
        log = self.started(format="json", query=False)
        log.exchange_finished(a_record("/a?secret"))
        self.stop(log)
        with open(self.path) as lines:
            self.assertIn('"path":"/a",', lines.read())

    def test_off(self) -> None:
        """``off`` opens nothing, writes nothing and drops nothing."""
        log = self.started(format="off")
        log.exchange_finished(a_record())
        self.assertIsNone(log.stopService())
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual((log.dropped, self.reactor.getDelayedCalls()), (0, []))

    def test_not_running(self) -> None:
        """What finishes while the log does not run is dropped and counted."""
        log = AccessLog(self.reactor, destination=self.mktemp())
        log.exchange_finished(a_record())
        self.assertEqual(log.dropped, 1)
        self.assertIsNone(log.stopService())

    def test_new_file_mode(self) -> None:
        """A new file can be read by its group and by nobody else, whatever the umask is."""
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        self.stop(self.started())
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_old_file_is_kept(self) -> None:
        """A file that is there is appended to and keeps its mode."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as old:
            old.write("x path=/old x\n")
        os.chmod(path, 0o604)
        log = self.started(path)
        log.exchange_finished(a_record("/new"))
        self.stop(log)
        self.assertEqual(self.paths_written(), ["/old", "/new"])
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o604)

    def test_cannot_open(self) -> None:
        """A path that cannot be opened fails the start with a sentence that names the setting."""
        path = os.path.join(self.mktemp(), "requests.log")
        log = AccessLog(self.reactor, destination=path)
        error = self.assertRaises(ConfigurationError, log.startService)
        self.assertEqual(str(error), f"log.destination: cannot write to {path!r}: no such file or directory")
        self.assertFalse(log.running)

    def test_fifo_without_reader(self) -> None:
        """A FIFO that nobody reads fails the start instead of hanging it."""
        path = os.path.abspath(self.mktemp())
        os.mkfifo(path)
        error = self.assertRaises(ConfigurationError, AccessLog(self.reactor, destination=path).startService)
        self.assertIn(os.strerror(errno.ENXIO).lower(), str(error))


class RotationTests(AccessLogCase):
    """Files that are taken away, settings that change."""

    def test_reopen(self) -> None:
        """After a rotation new lines go to a new file, pending ones to the old file."""
        log = self.started()
        log.exchange_finished(a_record("/before"))
        os.rename(self.path, self.path + ".1")
        log.reopen()
        log.exchange_finished(a_record("/after"))
        self.stop(log)
        self.assertEqual(self.paths_written(self.path + ".1"), ["/before"])
        self.assertEqual(self.paths_written(), ["/after"])

    def test_reopen_fails(self) -> None:
        """When the new file cannot be opened, the old one stays in use and the program log says why."""
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        log = self.started(os.path.join(directory, "log"))
        os.rename(directory, directory + ".1")
        with capturedLogs() as events:
            log.reopen()
        log.exchange_finished(a_record("/x"))
        self.stop(log)
        self.assertEqual(self.paths_written(os.path.join(directory + ".1", "log")), ["/x"])
        self.assertEqual([event["log_level"] for event in events], [LogLevel.error])

    def test_reopen_when_stopped(self) -> None:
        """A log that does not run has nothing to reopen."""
        AccessLog(self.reactor, destination="/nonexistent/log").reopen()

    def test_reconfigure(self) -> None:
        """Other settings apply to what finishes from now on."""
        log = self.started()
        log.exchange_finished(a_record("/a?b"))
        other = os.path.abspath(self.mktemp())
        log.reconfigure("logfmt", other, False)
        log.exchange_finished(a_record("/c?d"))
        self.stop(log)
        self.assertEqual(self.paths_written(), ["/a?b"])
        self.assertEqual(self.paths_written(other), ["/c"])

    def test_reconfigure_fails(self) -> None:
        """When the new destination cannot be opened, everything stays as it was."""
        log = self.started()
        self.assertRaises(ConfigurationError, log.reconfigure, "json", self.mktemp() + "/x", True)
        log.exchange_finished(a_record("/a"))
        self.stop(log)
        self.assertEqual(self.paths_written(), ["/a"])

    def test_prepared(self) -> None:
        """Prepared settings have no effect before they are committed."""
        log = self.started()
        other = os.path.abspath(self.mktemp())
        prepared = log.prepare("logfmt", other, True)
        log.exchange_finished(a_record("/a"))
        prepared.commit()
        log.exchange_finished(a_record("/b"))
        self.stop(log)
        self.assertEqual((self.paths_written(), self.paths_written(other)), (["/a"], ["/b"]))

    def test_discarded(self) -> None:
        """Settings that are thrown away change nothing and leave no file open."""
        log = self.started()
        pipe = os.path.abspath(self.mktemp())
        os.mkfifo(pipe)
        reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reading)
        prepared = log.prepare("json", pipe, True)
        self.assertRaises(BlockingIOError, os.read, reading, 1)  # open at the other end
        prepared.discard()
        self.assertEqual(os.read(reading, 1), b"")  # closed at the other end
        log.prepare("off", "-", True).discard()
        log.exchange_finished(a_record("/a"))
        self.stop(log)
        self.assertEqual(self.paths_written(), ["/a"])

    def test_committed_after_the_stop(self) -> None:
        """Settings committed after the stop are what it would start with."""
        log = self.started()
        other = os.path.abspath(self.mktemp())
        prepared = log.prepare("logfmt", other, True)
        self.stop(log)
        prepared.commit()
        log.startService()
        log.exchange_finished(a_record("/again"))
        self.stop(log)
        self.assertEqual((self.paths_written(), self.paths_written(other)), ([], ["/again"]))

    def test_off_and_on(self) -> None:
        """The log can be switched off and on again while it runs."""
        log = self.started()
        log.exchange_finished(a_record("/a"))
        log.reconfigure("off", "-", True)
        log.exchange_finished(a_record("/b"))
        other = os.path.abspath(self.mktemp())
        log.reconfigure("logfmt", other, True)
        log.exchange_finished(a_record("/c"))
        self.stop(log)
        self.assertEqual((self.paths_written(other), log.dropped), (["/c"], 0))


class ScriptedWriter(LineWriter):
    """A writer whose condition the test decides; it writes nothing."""

    waiting_bytes = 0
    dropped = 0
    handed = b""

    def start(self) -> None:
        pass

    def write(self, lines: bytes) -> None:
        self.handed += lines


class TroubleTests(AccessLogCase):
    """What the program log says about a request log in trouble."""

    def setUp(self) -> None:
        super().setUp()
        self.writer = ScriptedWriter(-1)
        self.log = AccessLog(self.reactor, destination="/dev/null", make_writer=self.make_writer)
        self.log.startService()

    def make_writer(self, descriptor: int) -> ScriptedWriter:
        os.close(descriptor)
        return self.writer

    def levels_told(self) -> list[LogLevel]:
        """What the program log says while one more record is written."""
        with capturedLogs() as events:
            self.log.exchange_finished(a_record())
            self.reactor.advance(FLUSH_SECONDS)
        return [event["log_level"] for event in events]

    def test_broken(self) -> None:
        """A destination that fails is told once, however often it goes on failing."""
        self.writer.error = OSError(errno.ENOSPC, "no space left")
        self.assertEqual(self.levels_told(), [LogLevel.error])
        self.writer.dropped = 5
        self.assertEqual(self.levels_told(), [])

    def test_works_again(self) -> None:
        """When it works again, the lines lost are told, and the next failure is told again."""
        self.writer.error = OSError(errno.ENOSPC, "no space left")
        self.levels_told()
        self.writer.dropped, self.writer.error = 5, None
        with capturedLogs() as events:
            self.log.exchange_finished(a_record())
            self.reactor.advance(FLUSH_SECONDS)
        self.assertEqual([(event["log_level"], event["lost"]) for event in events], [(LogLevel.warn, 5)])
        self.writer.error = OSError(errno.ENOSPC, "no space left")
        self.assertEqual(self.levels_told(), [LogLevel.error])

    def test_silent_while_blocked(self) -> None:
        """Nothing is told while lines wait: the program log may be the same blocked pipe."""
        self.writer.dropped, self.writer.waiting_bytes = 5, 100
        self.assertEqual(self.levels_told(), [])
        self.writer.waiting_bytes = 0
        self.assertEqual(self.levels_told(), [LogLevel.warn])

    def test_told_rarely(self) -> None:
        """A slow destination that drops a few lines all the time is told about once a minute."""
        self.writer.dropped = 1
        self.assertEqual(self.levels_told(), [LogLevel.warn])
        self.writer.dropped = 2
        self.assertEqual(self.levels_told(), [])
        self.reactor.advance(REPORT_SECONDS)
        self.assertEqual(self.levels_told(), [LogLevel.warn])

    def test_dropped(self) -> None:
        """The counter has the lines that the writer lost."""
        self.writer.dropped = 7
        self.assertEqual(self.log.dropped, 7)

    def test_record_that_cannot_be_formatted(self) -> None:
        """A bug in formatting costs that line, and is told once with its traceback."""
        broken = a_record()
        broken.queue_seconds = "soon"  # type: ignore[assignment]
        for _ in range(2):
            self.log.exchange_finished(broken)
            self.log.exchange_finished(a_record())
            self.reactor.advance(FLUSH_SECONDS)
        self.assertEqual(self.log.dropped, 2)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_one_of_many(self) -> None:
        """That line is lost and no other of those that finished together."""
        broken = a_record("/broken")
        broken.queue_seconds = "soon"  # type: ignore[assignment]
        self.log.exchanges_finished([a_record("/before"), broken, a_record("/after")])
        self.reactor.advance(FLUSH_SECONDS)
        lines = self.writer.handed.splitlines()
        self.assertEqual([b"path=/before" in lines[0], b"path=/after" in lines[1]], [True, True])
        self.assertEqual((len(lines), self.log.dropped), (2, 1))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
