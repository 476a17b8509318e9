"""The event loop, in a thread of its own, that an application lives in while synchronous code talks to it.

    loop = ApplicationLoop(client)
    loop.portal.call(function, argument)
    loop.close()

What a reader gets wrong: nobody has to close it. It ends with the client that it belongs to, and with the program: a thread that
waited for a client that was forgotten would keep the interpreter alive for ever.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import threading
import weakref
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.from_thread import BlockingPortal

from dcaf.testing.asgi import LEAVING_S, Line

ENDING_S: Final = LEAVING_S + 1
"""How long a program that has come to its end waits for an application to end, too."""


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """A loop that runs.

    Attributes:
        portal: The way into it.
        loop: Itself.
        stopping: Set to have it end.
        thread: What it runs in.
    """

    portal: BlockingPortal
    loop: asyncio.AbstractEventLoop
    stopping: asyncio.Event
    thread: threading.Thread

    def stop(self) -> None:
        """Have it end, from any thread, without waiting for it: the garbage collector calls this wherever it runs."""
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self.stopping.set)


_OPEN: Final[set[_Running]] = set()


class ApplicationLoop:
    """An event loop in a thread of its own.

    Args:
        owner: Whom it belongs to. When nothing holds the owner any more, the loop stops, and with it what runs there.

    Attributes:
        portal: The way into it.
    """

    def __init__(self, owner: object) -> None:
        begun: Future[_Running] = Future()
        # a context of its own: what was current where the client was made is not current in the application
        threading.Thread(target=contextvars.Context().run, args=(_run, begun), name="dcaf-testing", daemon=True).start()
        self._running = begun.result()
        weakref.finalize(owner, self._running.stop).atexit = False
        self.portal: BlockingPortal = self._running.portal

    def close(self) -> None:
        """Stop it, and wait until it has ended."""
        self._running.stop()
        self._running.thread.join()


@atexit.register
def end_open_loops() -> None:
    """Stop the loops of clients that nobody has closed, and give their applications the time to end."""
    found = list(_OPEN)
    for running in found:
        running.stop()
    for running in found:
        running.thread.join(ENDING_S)


def _run(begun: Future[_Running]) -> None:
    try:
        anyio.run(_live, begun)
    except BaseException as error:
        if begun.done():
            raise
        begun.set_exception(error)


async def _live(begun: Future[_Running]) -> None:
    stopping = asyncio.Event()
    async with BlockingPortal() as portal:
        running = _Running(portal, asyncio.get_running_loop(), stopping, threading.current_thread())
        _OPEN.add(running)
        begun.set_result(running)
        await stopping.wait()
        await Line.forget_all()
        await portal.stop(cancel_remaining=True)
    _OPEN.discard(running)
