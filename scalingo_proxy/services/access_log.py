"""The request log: one line for each finished exchange.

Turns records into lines (:mod:`scalingo_proxy.services.log_formats`) and
hands them, many at a time, to a thread that writes
(:mod:`scalingo_proxy.services.line_writer`).  A destination that is full,
broken or blocked never stops traffic: lines are dropped and counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from scalingo_proxy.errors import ConfigurationError, Mistake
from scalingo_proxy.interfaces import IObserver
from scalingo_proxy.model import Record
from scalingo_proxy.services.batches import nothing_to_tell
from scalingo_proxy.services.line_writer import LineWriter
from scalingo_proxy.services.log_formats import Formatter, formatter

__all__ = ["BATCH_LINES", "FLUSH_SECONDS", "REPORT_SECONDS", "STOP_SECONDS", "AccessLog", "PreparedLog"]

#: How long a line may wait for others to be written with it.
FLUSH_SECONDS = 0.025
#: How many lines are written without waiting any longer; fewer would wake the thread more often.
BATCH_LINES = 256
#: How long stopping waits for a destination that does not take the last lines.
STOP_SECONDS = 5.0
#: How often the program log tells of dropped lines at most.
REPORT_SECONDS = 60.0


class _Reactor(Protocol):
    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object) -> IDelayedCall: ...  # noqa: A002

    def callFromThread(self, callable: Callable[..., Any], *args: object) -> None: ...  # noqa: A002


class PreparedLog:
    """Other settings for a log, ready to take effect; call one of the two, once."""

    def __init__(
        self, log: AccessLog, wanted: Formatter | None, destination: str, descriptor: int | None
    ) -> None:
        self._log = log
        self._wanted = wanted
        self._destination = destination
        self._descriptor = descriptor

    def commit(self) -> None:
        """Go on with these settings."""
        self._log._take_over(self._wanted, self._destination, self._descriptor)

    def discard(self) -> None:
        """Close what was opened; the log stays as it is."""
        if self._descriptor is not None:
            os.close(self._descriptor)


@implementer(IObserver)
class AccessLog(Service):
    """Writes the request log.

    Records that finish before it is started or after it is stopped are
    dropped, so stop it after the listeners have drained.

    :param format: ``logfmt``, ``json``, ``combined`` or ``off``.
    :param destination: ``"-"`` for standard output, or the path of a file,
        which is appended to and, if need be, made with mode 0640.
    :param query: whether the query of the path is told.
    :param standard_output: the descriptor that ``"-"`` stands for.
    :param make_writer: makes what writes to a descriptor.
    """

    _log = Logger()

    #: See :class:`~scalingo_proxy.services.broadcast.Broadcast`.
    is_for_exchanges_alone = True

    def __init__(
        self,
        reactor: _Reactor,
        format: str = "logfmt",  # noqa: A002 - the word of the setting
        destination: str = "-",
        query: bool = True,
        *,
        standard_output: int = 1,
        make_writer: Callable[[int], LineWriter] = LineWriter,
    ) -> None:
        self._reactor = reactor
        self._make_writer = make_writer
        self._format = _formatter_or_none(format, query)
        self._destination = destination
        self._standard_output = standard_output
        self._lines: list[str] = []
        self._writer: LineWriter | None = None
        self._flush_call: IDelayedCall | None = None
        self._dropped = 0
        self._error_told: OSError | None = None
        self._dropped_told = 0
        self._told_at: float | None = None
        self._has_failed_to_format = False
        #: Makes sure that nothing waits to be told; called before anything changes.
        self.catch_up: Callable[[], object] = nothing_to_tell

    @property
    def dropped(self) -> int:
        """How many lines were lost since the process began."""
        return self._dropped + (self._writer.dropped if self._writer is not None else 0)

    # -- IObserver -----------------------------------------------------------

    def exchange_finished(self, record: Record) -> None:
        self.exchanges_finished((record,))

    def exchanges_finished(self, records: Sequence[Record]) -> None:
        """The same of several."""
        if self._writer is None:
            if self._format is not None:
                self._dropped += len(records)
            return
        self._format_all(records)
        if self._flush_call is None:
            self._flush_call = self._reactor.callLater(FLUSH_SECONDS, self._flush)
        elif len(self._lines) >= BATCH_LINES:
            self._flush_call.cancel()
            self._flush()

    def connection_opened(self, listener: str, kind: str) -> None:
        """Nothing: the log tells of exchanges."""

    def connection_closed(self, listener: str, kind: str) -> None:
        """Nothing: the log tells of exchanges."""

    # -- IService ------------------------------------------------------------

    def startService(self) -> None:
        """Open the destination.

        Not in ``privilegedStartService``: the file has to belong to the user
        who opens it again after a rotation.

        :raises ConfigurationError: when it cannot be opened.
        """
        if self._format is not None:
            self._start_writer(self._open(self._destination))
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None] | None:
        """Write what is left; fires when it is written, or after :data:`STOP_SECONDS`."""
        super().stopService()  # type: ignore[no-untyped-call]
        self.catch_up()
        if self._writer is None:
            return None
        stopped: Deferred[None] = Deferred()

        def finish(deadline: IDelayedCall | None) -> None:
            if deadline is not None and deadline.active():
                deadline.cancel()
            if not stopped.called:
                stopped.callback(None)

        deadline = self._reactor.callLater(STOP_SECONDS, finish, None)
        self._stop_writer(lambda: self._reactor.callFromThread(finish, deadline))
        return stopped

    # -- while it runs -------------------------------------------------------

    def reopen(self) -> None:
        """Open the file anew, because the old one was rotated away.

        If that fails, the program log says so and the old file stays in use.
        Standard output is left as it is.
        """
        if self._writer is None or self._destination == "-":
            return
        try:
            descriptor = self._open(self._destination)
        except ConfigurationError as error:
            self._log.error("the request log stays with its old file: {error}", error=error)
            return
        self._flush_now()
        self._writer.switch_to(descriptor)

    def reconfigure(self, format: str, destination: str, query: bool) -> None:  # noqa: A002
        """Go on with other settings; what finished before is written with the old ones.

        :raises ConfigurationError: when the destination cannot be opened;
            then nothing has changed.
        """
        self.prepare(format, destination, query).commit()

    def prepare(self, format: str, destination: str, query: bool) -> PreparedLog:  # noqa: A002
        """Open what other settings need, to be used or thrown away later.

        For a reload that may still be refused for other reasons.

        :raises ConfigurationError: when the destination cannot be opened.
        """
        wanted = _formatter_or_none(format, query)
        descriptor = self._open(destination) if self.running and wanted is not None else None
        return PreparedLog(self, wanted, destination, descriptor)

    def _take_over(self, wanted: Formatter | None, destination: str, descriptor: int | None) -> None:
        self._flush_now()
        self._format = wanted
        self._destination = destination
        if descriptor is not None and self._writer is not None:
            self._writer.switch_to(descriptor)
        elif descriptor is not None and self.running:
            self._start_writer(descriptor)
        elif descriptor is not None:  # stopped meanwhile
            os.close(descriptor)
        elif self._writer is not None:
            self._stop_writer(lambda: None)

    # -- inner parts ---------------------------------------------------------

    def _open(self, destination: str) -> int:
        try:
            return os.dup(self._standard_output) if destination == "-" else _open_for_appending(destination)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            message = f"cannot write to {destination!r}: {reason}"
            raise ConfigurationError([Mistake("log.destination", message)]) from error

    def _start_writer(self, descriptor: int) -> None:
        self._writer = self._make_writer(descriptor)
        self._writer.start()

    def _stop_writer(self, stopped: Callable[[], None]) -> None:
        self._flush_now()
        writer, self._writer = self._writer, None
        if writer is not None:
            self._dropped += writer.dropped
            writer.stop(stopped)

    def _flush_now(self) -> None:
        self.catch_up()
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush()

    def _flush(self) -> None:
        self._flush_call = None
        lines, self._lines = self._lines, []
        if self._writer is not None:
            lines.append("")
            self._report(self._writer)
            self._writer.write("\n".join(lines).encode("ascii"))

    def _format_all(self, records: Sequence[Record]) -> None:
        write_lines = self._format
        if write_lines is None:  # pragma: no cover - there is no writer then
            return
        try:
            self._lines += write_lines(records)
        except Exception:
            self._format_each(write_lines, records)

    def _format_each(self, write_lines: Formatter, records: Sequence[Record]) -> None:
        """One of *records* cannot be formatted: write all the others."""
        for record in records:
            try:
                self._lines += write_lines((record,))
            except Exception:
                self._dropped += 1
                if not self._has_failed_to_format:  # once: a bug would repeat for every request
                    self._has_failed_to_format = True
                    self._log.failure("a record could not be formatted for the request log")

    def _report(self, writer: LineWriter) -> None:
        """Tell the program log of trouble, rarely.

        Not while lines are waiting: the program log may go to the same
        blocked pipe, and it is written by the reactor's own thread.
        """
        error, dropped = writer.error, self.dropped
        if error is not None and self._error_told is None:
            self._error_told = error
            self._log.error("the request log cannot be written, lines are dropped: {error}", error=error)
        elif dropped > self._dropped_told and writer.waiting_bytes == 0 and error is None:
            now = self._reactor.seconds()
            if self._told_at is None or now - self._told_at >= REPORT_SECONDS:
                lost = dropped - self._dropped_told
                self._dropped_told, self._told_at, self._error_told = dropped, now, None
                self._log.warn("the request log lost {lost} lines", lost=lost)


def _formatter_or_none(name: str, query: bool) -> Formatter | None:
    return None if name == "off" else formatter(name, query)


def _open_for_appending(path: str) -> int:
    # O_NONBLOCK lets a FIFO without a reader fail at once instead of hanging the start.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o640)
    except FileExistsError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o640)
    else:
        os.fchmod(descriptor, 0o640)  # whatever the umask is, so that a log collector's group can read
    os.set_blocking(descriptor, True)
    return descriptor
