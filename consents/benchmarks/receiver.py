"""An organization's server that takes everything at once: `python -m consents.benchmarks.receiver` prints its port.

As little as HTTP allows, in a process of its own, so that what is measured is the sender. It names in each answer what it has
received (but at /bare, where the limit is measured). Ends with its parent.
"""

import asyncio
import os
import re
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_JTI = re.compile(rb'"jti":"([0-9a-f-]{36})"')
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Receiver(asyncio.Protocol):
    """Answers each request when its body is there. `arrived` keeps where and when an id came first."""

    def __init__(self, arrived: dict[bytes, tuple[bytes, float]]):
        self.arrived, self.buffer = arrived, b""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (head := self.buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self.buffer, 0, head)
            end = head + 4 + (int(found[1]) if found else 0)
            if len(self.buffer) < end:
                return
            if self.buffer.startswith(b"GET /arrived"):
                lines = b"".join(b"%s %s %f\n" % (ident, *one) for ident, one in self.arrived.items())
                self.arrived.clear()
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(lines), lines))
            else:
                self.transport.write(self._taken(head, end))
            self.buffer = self.buffer[end:]

    def _taken(self, head: int, end: int) -> bytes:
        """The answer to the request whose body lies between `head` and `end`."""
        path = self.buffer[: self.buffer.find(b"\r\n")].split(b" ")[1]
        if path == b"/bare":
            return _ANSWER
        ids, now = _JTI.findall(self.buffer, head, end), time.time()
        for ident in ids:
            self.arrived.setdefault(ident, (path, now))
        body = b'{"ack":["%s"]}' % b'","'.join(ids)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def serve() -> None:
    arrived: dict[bytes, tuple[bytes, float]] = {}
    server = await asyncio.get_running_loop().create_server(lambda: Receiver(arrived), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    asyncio.run(serve())
