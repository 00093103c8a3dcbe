"""Frames out of bytes (RFC 9113 §4), with every length checked before it is waited for.

Stands in for the frame buffer of h2, which collects a frame of 16 MB before it
says that 16 kB are the limit, and 64 CONTINUATION frames before it loses
patience.  Knows frames and header blocks, no streams and no windows.
"""

from __future__ import annotations

from h2.exceptions import DenialOfServiceError, FrameDataMissingError, FrameTooLargeError, ProtocolError
from hyperframe.exceptions import HyperframeError, InvalidFrameError
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame, SettingsFrame, WindowUpdateFrame

__all__ = ["MAX_CONTINUATIONS", "MAX_HEADER_BLOCK_BYTES", "PREFACE", "FrameReader"]

#: What a client sends first (RFC 9113 §3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: The largest frame we take, which is the least that may be announced.
MAX_FRAME_BYTES = 16384

#: CONTINUATION frames in one header block (VU#421644), and bytes, still compressed.
MAX_CONTINUATIONS = 16
MAX_HEADER_BLOCK_BYTES = 65536

_HEADER_BYTES = 9
_END_HEADERS = 0x4


class FrameReader:
    """Takes bytes as they come and gives whole frames; a header block is one HEADERS frame.

    Has what :class:`h2.connection.H2Connection` asks of its ``incoming_buffer``.
    """

    def __init__(self) -> None:
        self.max_frame_size = MAX_FRAME_BYTES
        self._data = bytearray()
        self._preface_read = False
        self._block: list[HeadersFrame | ContinuationFrame] = []
        self._block_bytes = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether nothing is left of a frame or a header block that is not complete."""
        return not self._data and not self._block

    def add_data(self, data: bytes) -> None:
        """Take what was received.

        :raises ProtocolError: when it does not begin as it must.
        """
        self._data += data
        if not self._preface_read:
            have = self._data[: len(PREFACE)]
            if not PREFACE.startswith(have):
                raise ProtocolError("the connection does not begin with the preface of HTTP/2")
            if len(have) == len(PREFACE):
                self._preface_read = True
                del self._data[: len(PREFACE)]

    def next_frame(self) -> Frame | None:
        """The next whole frame; None: need more.

        :raises ProtocolError: with the error code of what is wrong.
        """
        data = self._data
        while self._preface_read and len(data) >= _HEADER_BYTES:
            length = (data[0] << 16) + (data[1] << 8) + data[2]
            if length > MAX_FRAME_BYTES:
                raise FrameTooLargeError(f"a frame of {length} bytes")
            if len(data) < _HEADER_BYTES + length:
                return None
            frame = self._parse(length)
            del data[: _HEADER_BYTES + length]
            if self._block or (type(frame) is HeadersFrame and "END_HEADERS" not in frame.flags):
                whole = self._continue_block(frame, length)
                if whole is None:
                    continue
                return whole
            return frame
        return None

    def _parse(self, length: int) -> Frame:
        view = memoryview(self._data)
        frame = None
        try:
            frame, _ = Frame.parse_frame_header(view[:_HEADER_BYTES])
            if type(frame) is SettingsFrame and length and "ACK" in frame.flags:
                raise FrameDataMissingError("an acknowledgement of SETTINGS with settings in it")
            frame.parse_body(view[_HEADER_BYTES : _HEADER_BYTES + length])
        except InvalidFrameError as error:
            raise FrameDataMissingError(str(error)) from error
        except HyperframeError as error:
            if type(frame) is not WindowUpdateFrame or not frame.stream_id:
                raise ProtocolError(str(error)) from error
            frame.window_increment = 0  # costs the stream alone (RFC 9113 §6.9)
        finally:
            view.release()
        return frame

    def _continue_block(self, frame: Frame, length: int) -> HeadersFrame | None:
        """Collect a header block, which nothing may come in between (RFC 9113 §6.10)."""
        block = self._block
        if block and (type(frame) is not ContinuationFrame or frame.stream_id != block[0].stream_id):
            raise ProtocolError("a header block is not complete")
        assert isinstance(frame, (HeadersFrame, ContinuationFrame))
        block.append(frame)
        self._block_bytes += length
        if len(block) - 1 > MAX_CONTINUATIONS or self._block_bytes > MAX_HEADER_BLOCK_BYTES:
            raise DenialOfServiceError("a header block does not end")
        if "END_HEADERS" not in frame.flags:
            return None
        first = block[0]
        assert isinstance(first, HeadersFrame)
        first.flags.add("END_HEADERS")
        first.data = b"".join([part.data for part in block])
        block.clear()
        self._block_bytes = 0
        return first
