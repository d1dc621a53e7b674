"""Length-prefixed frames over a stream socket.

What an untrusted process sends is JSON. What it is sent is in Python's marshal format, which is quicker to read and is
read by nobody but the untrusted process itself: marshal must never meet bytes that come from there.
"""

import json
import marshal
import os
import time
from collections.abc import Callable
from typing import Any

MAX_REPLY = 8 << 20  # bytes of one frame from a candidate
MAX_REQUEST = 64 << 20
LOOK_S = 0.1
_READ_BYTES = 8192
PLAIN = 2  # marshal's version without interned strings, which a forked child pays for in pages
_encoder = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_pieces: Any = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
    None, _encoder.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True
)  # made once: JSONEncoder.encode makes one a message
_from_json = json.JSONDecoder(parse_constant=float).raw_decode  # a NaN of its own each time


class Garbage(Exception):
    """A frame that is not of this protocol. Judged as a failure, never parsed further."""


class TooLarge(Garbage):
    """A frame over the limit."""


class Closed(Exception):
    """The other side is gone."""


def to_json(message: Any) -> bytes:
    """A message as compact JSON."""
    return "".join(_pieces(message, 0)).encode()


class Channel:
    """One end of the conversation. `trusting` ends read marshal and write JSON; the others the reverse.

    `idle` is called whenever the socket's timeout passes, and every LOOK_S at least; it may raise to give up.
    """

    def __init__(
        self, descriptor: int, limit: int, trusting: bool = False, idle: Callable[[], None] | None = None
    ) -> None:
        self.descriptor, self.limit, self.trusting, self.idle = descriptor, limit, trusting, idle
        self._buffer = b""
        self._looked = time.monotonic()

    def send(self, *messages: Any) -> None:
        """Send one frame a message. Raises Closed when nobody is left to read them."""
        parts: list[bytes] = []
        for message in messages:
            body = to_json(message) if self.trusting else marshal.dumps(message, PLAIN)
            parts += (len(body).to_bytes(4, "little"), body)
        data = b"".join(parts)
        while data:
            try:
                data = data[os.write(self.descriptor, data) :]
            except BlockingIOError:
                self._look()
            except OSError:
                raise Closed from None

    def receive(self) -> Any:
        """The next frame. Raises Closed at end of stream, Garbage for a frame over the limit or not JSON."""
        size = int.from_bytes(self._take(4), "little")
        if size > self.limit:
            raise TooLarge(f"an answer of {size} bytes, over the limit of {self.limit}")
        body = self._take(size)
        if self.trusting:
            return marshal.loads(body)
        try:
            text = body.decode()
            message, end = _from_json(text)
        except (ValueError, RecursionError) as error:
            raise Garbage(f"{type(error).__name__} in a frame") from None
        if end != len(text):
            raise Garbage("a frame with something after its message")
        return message

    def _take(self, size: int) -> bytes:
        if len(self._buffer) < size:
            self._fill(size)
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _fill(self, size: int) -> None:
        parts, have = [self._buffer], len(self._buffer)
        while have < size:
            try:
                part = os.read(self.descriptor, max(_READ_BYTES, min(size - have, 1 << 20)))
            except BlockingIOError:
                self._look()
                continue
            except OSError:
                raise Closed from None
            if not part:
                raise Closed
            parts.append(part)
            have += len(part)
            if time.monotonic() - self._looked > LOOK_S:  # neither drips nor chatter may starve the clock
                self._look()
        self._buffer = b"".join(parts)

    def _look(self) -> None:
        self._looked = time.monotonic()
        if self.idle:
            self.idle()
