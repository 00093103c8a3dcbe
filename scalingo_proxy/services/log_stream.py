"""Standard output for the program's own log, without ever holding up the reactor.

``twistd -n`` writes its log to ``sys.stdout`` from the reactor's thread.  When
that is a pipe that nobody reads, one line too many would stop every request.
Stands in its place: until :meth:`LogStream.begin` a plain passing on, and from
then on a thread of its own does the writing, which may wait and may lose lines.
"""

from __future__ import annotations

import io
import os
import threading
from typing import TextIO

from scalingo_proxy.services.line_writer import LineWriter

__all__ = ["LogStream"]


class LogStream(io.TextIOBase):
    """A text stream that never blocks once it has begun.

    :param stream: the real one, with a descriptor.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._writer: LineWriter | None = None
        self._rest = ""

    @property
    def dropped(self) -> int:
        """How many lines were lost."""
        return self._writer.dropped if self._writer is not None else 0

    def begin(self) -> None:
        """Let a thread write from now on; not before the process has forked for good."""
        if self._writer is None:
            self._stream.flush()
            self._writer = LineWriter(os.dup(self._stream.fileno()))
            self._writer.start()

    def end(self, seconds: float = 1.0) -> None:
        """Wait until what is written has gone out, but no longer than that."""
        writer, self._writer = self._writer, None
        if writer is not None:
            ended = threading.Event()
            writer.stop(ended.set)
            ended.wait(seconds)

    # -- a text stream -------------------------------------------------------

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        if self._writer is None:
            return self._stream.write(text)
        lines, newline, self._rest = (self._rest + text).rpartition("\n")
        if newline:
            self._writer.write(f"{lines}\n".encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        if self._writer is None:
            self._stream.flush()
