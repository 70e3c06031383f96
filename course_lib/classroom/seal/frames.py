"""Messages over a socket: a JSON head, then raw buffers; sizes are bounded before anything is allocated."""

from __future__ import annotations

import itertools
import json
import socket
import struct
from collections.abc import Sequence

LARGEST_HEAD = 16 << 20  # bytes
LARGEST_BODY = 256 << 20
MOST_BUFFERS = 20_000
_SIZES = struct.Struct("!II")  # of the head, number of buffers


class Closed(ConnectionError):
    """The other side is gone, or sent what is no message."""


class Frames:
    """Both directions of one stream socket.

    Args:
        stream: connected; `settimeout` on it bounds each read.
        largest: bytes of one incoming message.
    """

    def __init__(self, stream: socket.socket, largest: int = LARGEST_BODY) -> None:
        self.stream, self.largest = stream, largest

    def send(self, head: object, buffers: Sequence[bytes | memoryview] = ()) -> None:
        """Write one message. Raises Closed if nobody reads any more, TimeoutError if nobody reads in time."""
        text = json.dumps(head, separators=(",", ":")).encode()
        sizes = struct.pack(f"!{len(buffers)}Q", *(memoryview(b).nbytes for b in buffers))
        try:
            self.stream.sendall(b"".join([_SIZES.pack(len(text), len(buffers)), text, sizes, *buffers]))
        except TimeoutError:
            raise
        except OSError as error:
            raise Closed(f"the other process is gone ({error})") from error

    def receive(self) -> tuple[object, list[memoryview]]:
        """Read one message. Raises Closed for the end of the stream and for nonsense, TimeoutError as set."""
        head_size, count = _SIZES.unpack(self._exactly(_SIZES.size))
        if head_size > LARGEST_HEAD or count > MOST_BUFFERS:
            raise Closed(f"a message of {head_size} bytes and {count} arrays: more than is allowed")
        try:
            head = json.loads(bytes(self._exactly(head_size)))
        except (ValueError, RecursionError) as error:
            raise Closed(f"not a message: {error}") from error
        sizes = struct.unpack(f"!{count}Q", self._exactly(8 * count))
        if sum(sizes) > self.largest:
            raise Closed(f"a message of {sum(sizes) >> 20} MiB; {self.largest >> 20} MiB are allowed")
        body = memoryview(self._exactly(sum(sizes)))
        ends = list(itertools.accumulate(sizes))
        return head, [body[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def close(self) -> None:
        self.stream.close()

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view, got = memoryview(data), 0
        while got < size:
            try:
                read = self.stream.recv_into(view[got:])
            except TimeoutError:
                raise
            except OSError as error:
                raise Closed(f"the other process is gone ({error})") from error
            if not read:
                raise Closed("the other process has closed the connection")
            got += read
        return data
