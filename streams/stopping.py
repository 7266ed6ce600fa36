"""How a service ends: told by SIGTERM or Ctrl-C, in order within the grace, and cut off behind it.

A thread hears the signal, so that it counts while the service waits for a disk or a lock as well. What is cut off is no worse than
what is killed: marks, ledger and outbox carry the next start on.
"""
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import NoReturn

log = logging.getLogger("sluice")
GRACE_S = 5.0       # from the wish to stop to the end of the process


class Stop:
    """The wish that this process ends: `over` is set in the loop that was attached, the grace runs from the first signal."""

    def __init__(self, name: str, grace_s: float = GRACE_S):
        self.name, self.grace_s, self.told = name, grace_s, ""
        self.since, self.status = 0.0, 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._began = threading.Lock()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._ends = ours, theirs
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, lambda *_: None)         # the byte on the socket is what counts
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="stop", daemon=True).start()

    def attach(self, over: asyncio.Event) -> None:
        """From now on a signal sets `over` in the running loop; before, it ends the process, for nothing has begun."""
        self._over, self._loop = over, asyncio.get_running_loop()
        if self.told:
            over.set()

    def begin(self, why: str, status: int = 0) -> None:
        """The grace begins, unless it runs already: the process ends within it, whatever hangs; with that status, or a worse one."""
        if not self._began.acquire(blocking=False):
            return
        self.told, self.since, self.status = why, time.monotonic(), status
        log.info("%s: %s: stopping", self.name, why)
        timer = threading.Timer(self.grace_s, self._cut_off)
        timer.daemon = True
        timer.start()
        if self._loop is None:
            log.info("%s: ended before it was ready", self.name)
            self.leave(status)
        if self._loop and self._over:
            try:
                self._loop.call_soon_threadsafe(self._over.set)
            except RuntimeError:        # the loop has ended by itself just now
                pass

    def _listen(self) -> None:
        while data := self._ends[0].recv(16):
            for number in data:
                if number in (signal.SIGTERM, signal.SIGINT):
                    self.begin(signal.Signals(number).name)

    def _cut_off(self) -> None:
        log.error("%s: not ended within %g s: cut off; the next start goes on from what is written", self.name, self.grace_s)
        self.leave(1)

    @staticmethod
    def leave(status: int) -> NoReturn:
        """Ends the process now: to take the interpreter apart costs seconds on a busy machine, and saves nothing."""
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
