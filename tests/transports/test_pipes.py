"""Pipes: given out, taken back, closed."""

from __future__ import annotations

import errno
import os

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from scalingo_proxy.transports import pipes as module
from scalingo_proxy.transports.pipes import Pipe, Pipes


class PipesTests(SynchronousTestCase):
    """A stock of pipes."""

    def setUp(self) -> None:
        self.pipes = Pipes()
        if not self.pipes.are_of_use:
            raise SkipTest("this platform cannot splice")
        self.addCleanup(self.pipes.close)

    def take(self) -> Pipe:
        pipe = self.pipes.take()
        assert pipe is not None
        return pipe

    def is_open(self, pipe: Pipe) -> bool:
        for descriptor in (pipe.source, pipe.sink):
            try:
                os.fstat(descriptor)
            except OSError:
                return False
        return True

    def test_shortage(self) -> None:
        """While descriptors are short none is opened, and those that are empty can be given up."""
        pipe, kept = self.take(), self.take()
        self.pipes.give_back(kept)
        self.pipes.shed()
        self.assertEqual([self.is_open(each) for each in (pipe, kept)], [True, False])
        self.pipes.has_room = lambda: False
        self.assertIsNone(self.pipes.take())
        self.pipes.give_back(pipe)
        self.assertIs(self.take(), pipe)

    def test_same_again(self) -> None:
        """An empty pipe that came back is the next one given out."""
        pipe = self.take()
        self.pipes.give_back(pipe)
        self.assertIs(self.take(), pipe)
        self.pipes.give_back(pipe)

    def test_full_one_is_closed(self) -> None:
        """One with bytes in it is never given to anybody else."""
        pipe = self.take()
        pipe.held = 1
        self.pipes.give_back(pipe)
        self.assertFalse(self.is_open(pipe))
        self.assertEqual((self.pipes.given_count, self.pipes.kept_count), (0, 0))

    def test_few_are_kept(self) -> None:
        """A rush leaves a bounded number behind."""
        rush = [self.take() for _ in range(100)]
        for pipe in rush:
            self.pipes.give_back(pipe)
        self.assertEqual(self.pipes.kept_count, 32)
        self.assertEqual(sum(map(self.is_open, rush)), 32)

    def test_few_are_large(self) -> None:
        """All that one proxy may need of large pipes is half of what a user may have in them."""
        rush = [self.take() for _ in range(40)]
        large = [pipe for pipe in rush if pipe.capacity > 65536]
        self.assertLessEqual(sum(pipe.capacity for pipe in large), 32 * 1048576)
        self.assertEqual({pipe.capacity for pipe in rush[32:]}, {65536})
        for pipe in rush:
            self.pipes.give_back(pipe)

    def test_large_ones_come_again(self) -> None:
        """A large pipe that was thrown away may be followed by another."""
        for _ in range(3):
            rush = [self.take() for _ in range(32)]
            capacities = {pipe.capacity for pipe in rush}
            for pipe in rush:
                pipe.held = 1
                self.pipes.give_back(pipe)
            self.assertEqual(len(capacities), 1)

    def test_closed(self) -> None:
        """When it is closed, empty ones go at once and others when they come back."""
        out, kept = self.take(), self.take()
        self.pipes.give_back(kept)
        self.pipes.close()
        self.assertEqual((self.is_open(out), self.is_open(kept)), (True, False))
        self.pipes.give_back(out)
        self.assertFalse(self.is_open(out))
        self.pipes.open()
        self.pipes.give_back(self.take())
        self.assertEqual(self.pipes.kept_count, 1)

    def test_given_up(self) -> None:
        """Where splicing was found not to work, there are none any more, opened again or not."""
        self.pipes.give_back(self.take())
        self.pipes.give_up()
        self.pipes.open()
        self.assertEqual((self.pipes.take(), self.pipes.kept_count), (None, 0))

    def test_no_descriptors(self) -> None:
        """Without descriptors there is none, and nothing is counted."""

        def refuse(flags: int) -> tuple[int, int]:
            raise OSError(errno.EMFILE, "too many open files")

        self.patch(os, "pipe2", refuse)
        self.assertEqual((self.pipes.take(), self.pipes.given_count), (None, 0))

    def test_large_ones_are_forbidden(self) -> None:
        """A user who may not have large ones gets those that there are."""
        real = module.fcntl

        def refuse_to_grow(descriptor: int, operation: int, value: int = 0) -> int:
            if operation == module.F_SETPIPE_SZ:
                raise PermissionError(errno.EPERM, "not permitted")
            return int(real(descriptor, operation, value))

        self.patch(module, "fcntl", refuse_to_grow)
        pipe = self.take()
        self.assertEqual(pipe.capacity, 65536)
        self.pipes.give_back(pipe)

    def test_tiny_ones(self) -> None:
        """One that holds a page or two, as a user gets who has too many, is not used."""
        opened = []

        def tiny(descriptor: int, operation: int, value: int = 0) -> int:
            opened.append(descriptor)
            return 8192

        self.patch(module, "fcntl", tiny)
        self.assertEqual((self.pipes.take(), self.pipes.given_count), (None, 0))
        self.assertRaises(OSError, os.fstat, opened[0])
