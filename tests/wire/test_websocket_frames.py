"""Where frames end: however they are cut, and whatever they carry."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.websocket_frames import SERVICE_RESTART, FrameBoundaries, close_frame


def frame(size: int, opcode: int = 2, final: bool = True, masked: bool = False) -> bytes:
    """A frame with a payload that looks like heads of frames."""
    mask = 128 if masked else 0
    if size < 126:
        length = bytes((mask | size,))
    elif size < 65536:
        length = bytes((mask | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((mask | 127,)) + size.to_bytes(8, "big")
    key = b"\x81\x7f\x88\x00" if masked else b""
    return bytes(((128 if final else 0) | opcode,)) + length + key + b"\x88" * size


FRAMES = (
    frame(0),
    frame(1),
    frame(125),
    frame(126),
    frame(300, final=False),
    frame(0, opcode=9),
    frame(70000, opcode=0),
    frame(5, masked=True),
    frame(65535, masked=True),
    frame(65536),
)


class BoundaryTests(SynchronousTestCase):
    """After each byte it is known whether a frame ends with it."""

    def test_byte_by_byte(self) -> None:
        """Exactly the last byte of each frame is a boundary."""
        for one in (frame(0), frame(3), frame(126), frame(5, masked=True), frame(0, opcode=9)):
            boundaries = FrameBoundaries()
            self.assertTrue(boundaries.is_between_frames)
            for index in range(len(one)):
                boundaries.receive(one[index : index + 1])
                self.assertEqual(boundaries.is_between_frames, index == len(one) - 1)

    def test_random_cuts(self) -> None:
        """However a stream is cut, the boundaries are those of its frames."""
        stream = b"".join(FRAMES)
        ends, position = set(), 0
        for one in FRAMES:
            position += len(one)
            ends.add(position)
        for seed in range(200):
            rng = random.Random(seed)
            boundaries, at = FrameBoundaries(), 0
            while at < len(stream):
                size = rng.choice((1, 2, 3, 9, 200, 65536))
                boundaries.receive(stream[at : at + size])
                at = min(at + size, len(stream))
                self.assertEqual(boundaries.is_between_frames, at in ends, (seed, at))

    def test_stop_at_the_boundary(self) -> None:
        """What was begun is followed to its end and no further, however it was cut before."""
        stream = b"".join(FRAMES)
        ends, position = [], 0
        for one in FRAMES:
            position += len(one)
            ends.append(position)
        for cut in (*range(1, 500), 70_000, 130_000, len(stream)):
            boundaries = FrameBoundaries()
            boundaries.receive(stream[:cut])
            followed = cut + boundaries.receive_to_boundary(stream[cut:])
            self.assertEqual(followed, min(end for end in (*ends, len(stream)) if end >= cut))
            self.assertTrue(boundaries.is_between_frames)
            boundaries.receive(stream[followed:])
            self.assertTrue(boundaries.is_between_frames)

    def test_end_before_the_boundary(self) -> None:
        """Without a boundary all of it is followed."""
        boundaries = FrameBoundaries()
        boundaries.receive(frame(100)[:1])
        self.assertEqual(boundaries.receive_to_boundary(frame(100)[1:50]), 49)
        self.assertFalse(boundaries.is_between_frames)
        self.assertEqual(boundaries.receive_to_boundary(frame(100)[50:] + b"x"), 52)

    def test_closed(self) -> None:
        """A close frame is known by its head, and nothing within a payload is one."""
        boundaries = FrameBoundaries()
        boundaries.receive(b"".join(FRAMES))
        self.assertFalse(boundaries.has_closed)
        boundaries.receive(close_frame(1000, "bye")[:2])
        self.assertTrue(boundaries.has_closed)

    def test_close_frame(self) -> None:
        """The frame that is sent, byte for byte."""
        self.assertEqual(close_frame(SERVICE_RESTART, "restart"), b"\x88\x09\x03\xf4restart")
