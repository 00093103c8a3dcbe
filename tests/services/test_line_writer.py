"""Tests for :mod:`scalingo_proxy.services.line_writer`."""

from __future__ import annotations

import errno
import os
import threading

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services.line_writer import LineWriter

#: More than a pipe holds.
MORE_THAN_A_PIPE = b"x" * 4095 + b"\n"

#: How long a test waits for the writing thread before it gives up.
PATIENCE = 30.0


class LineWriterTests(SynchronousTestCase):
    """What reaches the destination, and what happens when it does not."""

    def pipe(self) -> tuple[int, int]:
        """The reading and the writing end; the writer closes the latter."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        return reading, writing

    def started(self, descriptor: int, **options: int) -> LineWriter:
        """A writer that writes."""
        writer = LineWriter(descriptor, **options)
        writer.start()
        return writer

    def stop(self, writer: LineWriter) -> None:
        """Stop, and wait until the thread says that it did."""
        stopped = threading.Event()
        writer.stop(stopped.set)
        self.assertTrue(stopped.wait(PATIENCE), "the writing thread does not stop")

    def file(self) -> tuple[str, int]:
        """A path and a descriptor that appends to it."""
        path = self.mktemp()
        return path, os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def test_writes_in_order(self) -> None:
        """Everything handed in is written, in order, before it stops."""
        path, descriptor = self.file()
        writer = self.started(descriptor)
        for number in range(100):
            writer.write(b"%d\n" % number)
        self.stop(writer)
        with open(path, "rb") as lines:
            self.assertEqual([int(line) for line in lines], list(range(100)))
        self.assertEqual((writer.dropped, writer.waiting_bytes), (0, 0))

    def test_closes_what_it_was_given(self) -> None:
        """The descriptor is closed when it stops."""
        _, descriptor = self.file()
        self.stop(self.started(descriptor))
        self.assertRaises(OSError, os.fstat, descriptor)

    def test_switch(self) -> None:
        """Lines handed in before a switch go to the old destination, later ones to the new one."""
        old, old_descriptor = self.file()
        new, new_descriptor = self.file()
        writer = self.started(old_descriptor)
        writer.write(b"before\n")
        writer.switch_to(new_descriptor)
        writer.write(b"after\n")
        self.stop(writer)
        with open(old, "rb") as old_file, open(new, "rb") as new_file:
            self.assertEqual((old_file.read(), new_file.read()), (b"before\n", b"after\n"))
        self.assertRaises(OSError, os.fstat, old_descriptor)

    def test_blocked_pipe(self) -> None:
        """A pipe that nobody reads never blocks the caller; lines beyond the backlog are dropped."""
        reading, writing = self.pipe()
        writer = self.started(writing, backlog_bytes=64 * len(MORE_THAN_A_PIPE))
        for _ in range(200):
            writer.write(MORE_THAN_A_PIPE)
        dropped = writer.dropped
        self.assertGreaterEqual(dropped, 200 - 64 - 16 - 1)
        self.assertLessEqual(writer.waiting_bytes, 64 * len(MORE_THAN_A_PIPE))
        # Once somebody reads, what was taken arrives whole, and new lines are taken again.
        remaining = (200 - dropped) * len(MORE_THAN_A_PIPE)
        while remaining:
            remaining -= len(os.read(reading, min(65536, remaining)))
        self.assertEqual(remaining, 0)
        writer.write(b"again\n")
        self.assertEqual(os.read(reading, 100), b"again\n")
        self.assertEqual(writer.dropped, dropped)
        self.stop(writer)

    def test_stays_stoppable_when_blocked(self) -> None:
        """Asking a blocked writer to stop returns at once; it stops when the pipe moves again."""
        reading, writing = self.pipe()
        writer = self.started(writing)
        writer.write(MORE_THAN_A_PIPE * 32)
        stopped = threading.Event()
        writer.stop(stopped.set)
        self.assertFalse(stopped.is_set())
        remaining = 32 * len(MORE_THAN_A_PIPE)
        while remaining:
            remaining -= len(os.read(reading, 65536))
        self.assertTrue(stopped.wait(PATIENCE))

    def test_pipe_made_non_blocking_by_others(self) -> None:
        """A shared pipe that another process made non-blocking loses nothing."""
        reading, writing = self.pipe()
        os.set_blocking(writing, False)
        writer = self.started(writing)
        writer.write(MORE_THAN_A_PIPE * 64)
        remaining = 64 * len(MORE_THAN_A_PIPE)
        while remaining:
            remaining -= len(os.read(reading, 65536))
        self.stop(writer)
        self.assertEqual((writer.dropped, writer.error), (0, None))

    def test_reader_gone(self) -> None:
        """When the reader of a pipe has gone, every line is counted as dropped."""
        reading, writing = os.pipe()
        os.close(reading)
        writer = self.started(writing)
        writer.write(b"a\nb\n")
        writer.write(b"c\n")
        self.stop(writer)
        self.assertEqual(writer.dropped, 3)
        assert writer.error is not None
        self.assertEqual(writer.error.errno, errno.EPIPE)

    def test_full_disk(self) -> None:
        """A full disk drops and counts lines; when there is room again, writing goes on."""
        reading, writing = self.pipe()
        writer = self.started(os.open("/dev/full", os.O_WRONLY))
        writer.write(b"a\nb\n")
        writer.switch_to(writing)
        writer.write(b"c\n")
        self.assertEqual(os.read(reading, 100), b"c\n")
        self.stop(writer)
        self.assertEqual((writer.dropped, writer.error), (2, None))

    test_full_disk.skip = None if os.path.exists("/dev/full") else "there is no /dev/full here"  # type: ignore[attr-defined]

    def test_torn_line(self) -> None:
        """A line that a full disk cut is ended before the next one is written."""
        path, descriptor = self.file()
        room = [5, -1, -1]  # bytes taken by each write in turn; -1: the disk is full
        real_write = os.write

        def write(to: int, data: memoryview) -> int:
            if to != descriptor or not room:
                return real_write(to, data)
            taken = room.pop(0)
            if taken < 0:
                raise OSError(errno.ENOSPC, "no space left")
            return real_write(to, data[:taken])

        self.patch(os, "write", write)
        writer = self.started(descriptor)
        writer.write(b"one\ntwo\nthree\n")  # cut in "two", then no room
        writer.write(b"four\n")  # no room for the line end of the cut line
        writer.write(b"five\n")
        self.stop(writer)
        with open(path, "rb") as lines:
            self.assertEqual(lines.read(), b"one\nt\nfive\n")
        self.assertEqual(writer.dropped, 3)
