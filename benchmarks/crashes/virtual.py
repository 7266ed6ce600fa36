"""An event loop whose clock jumps to the next timer and whose sockets are in memory: hours of a desk in seconds, always the same.

Nothing of ours is replaced by it: exchange, executor and collector speak their own protocol over asyncio's streams; only what is
below them, the operating system's clock and its sockets, is.
"""
import asyncio
import selectors
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from benchmarks.crashes.edges import LIFE, Life, edge

EPOCH_S = 1_700_000_000.0     # the virtual wall clock at the beginning
HOP_S = 0.0002                # of a line


class Stalled(RuntimeError):
    """Nothing is ready, nothing waits for a time: whoever waits, waits for ever."""


class _Jump(selectors.DefaultSelector):
    loop: "VirtualLoop"

    def select(self, timeout=None):
        if (ready := super().select(0)) or timeout == 0:
            return ready
        if timeout is None:
            raise Stalled("every task waits for another")
        self.loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's loop on virtual time; servers and connections of its own."""

    def __init__(self) -> None:
        selector = _Jump()
        selector.loop = self
        self.now = 0.0
        self.servers: dict[tuple[str, int], Server] = {}
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def wall(self) -> float:
        """What `time.time()` is here."""
        return EPOCH_S + self.now

    async def create_server(self, protocol_factory, host=None, port=None, **_) -> Any:
        if (host, port) in self.servers:
            raise OSError(98, "Address already in use")
        self.servers[host, port] = server = Server(self, (host, port), protocol_factory)
        return server

    async def create_connection(self, protocol_factory, host=None, port=None, **_) -> Any:
        await asyncio.sleep(HOP_S)
        server = self.servers.get((host, port))
        if server is None:
            raise ConnectionRefusedError(111, "Connection refused")
        here, there = Wire(self, protocol_factory(), LIFE.get(), copy_context()), Wire(self, server.factory(), server.life, server.context)
        here.peer, there.peer = there, here
        for wire in (here, there):
            if wire.life:
                wire.life.at_death.append(wire.cut)
        there.context.run(there.protocol.connection_made, there)
        here.protocol.connection_made(here)
        return here, here.protocol


class Server:
    """A listening address; gone with its owner."""

    def __init__(self, loop: VirtualLoop, at: tuple, factory: Callable):
        self.loop, self.at, self.factory, self.life, self.context = loop, at, factory, LIFE.get(), copy_context()
        if self.life:
            self.life.at_death.append(self.close)

    def close(self) -> None:
        """Nobody is answered any more."""
        if self.loop.servers.get(self.at) is self:
            del self.loop.servers[self.at]

    def is_serving(self) -> bool:
        return True


class Wire(asyncio.Transport):
    """One end of a connection. What was written before a death arrives; what had not been read is lost with its reader."""

    def __init__(self, loop: VirtualLoop, protocol: Any, life: Life | None, context: Context):
        super().__init__()
        self.loop, self.protocol, self.life, self.context = loop, protocol, life, context
        self.peer: Wire = self
        self.held: deque[bytes] = deque()
        self.coming: deque[bytes] = deque()
        self.paused = self.closed = self.lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.closed:
            return
        edge("line: before a message")
        self.peer.coming.append(bytes(data))
        self.loop.call_later(HOP_S, self.peer.arrive, context=self.peer.context)
        edge("line: after a message")

    def arrive(self) -> None:
        """The next bytes from the other end; timers of one moment have no order, bytes have."""
        data = self.coming.popleft()
        if self.lost or (self.life and not self.life.alive):
            return
        if self.paused:
            self.held.append(data)
        else:
            self.protocol.data_received(data)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        while self.held and not self.paused and not self.lost:
            self.protocol.data_received(self.held.popleft())

    def is_reading(self) -> bool:
        return not self.paused

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.peer.held))

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        pass

    def get_extra_info(self, name, default=None):
        return default

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.loop.call_later(HOP_S, self.peer.end, context=self.peer.context)
            self.loop.call_soon(self.end)

    abort = close

    def cut(self) -> None:
        """Its process is gone: the other end learns of it behind what was sent."""
        if not self.closed:
            self.closed = self.lost = True
            self.loop.call_later(HOP_S, self.peer.end, context=self.peer.context)

    def end(self) -> None:
        """The connection is over at this end, behind all that was sent."""
        while self.coming and not self.lost:
            self.arrive()
        self.closed = True
        if not self.lost:
            self.lost = True
            if not self.life or self.life.alive:
                self.protocol.connection_lost(None)
