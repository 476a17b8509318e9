"""The event loop, in a thread of its own, that an application lives in while synchronous code talks to it.

    loop = ApplicationLoop(client)
    loop.portal.call(function, argument)
    loop.close()

What a reader gets wrong: nobody has to close it. It ends with the client that it belongs to, and with the program: a thread that
waited for a client that was forgotten would keep the interpreter alive for ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.from_thread import BlockingPortal

WATCH_S: Final = 0.2
"""How often the loop looks whether the program has come to its end. Nothing tells it: where the application has threads that end
with it, the interpreter waits for them before it calls what is registered at its exit."""

ENDING_S: Final = 5.0
"""How long a program that has come to its end waits for the application."""


@dataclass(frozen=True, slots=True)
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
        if not threading.main_thread().is_alive():
            self.thread.join(ENDING_S)


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
        self._ending = weakref.finalize(owner, self._running.stop)
        self.portal: BlockingPortal = self._running.portal

    def close(self) -> None:
        """Stop it, and wait until it has ended."""
        self._ending()
        self._running.thread.join()


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
        begun.set_result(_Running(portal, asyncio.get_running_loop(), stopping, threading.current_thread()))
        while not stopping.is_set() and threading.main_thread().is_alive():
            with anyio.move_on_after(WATCH_S):
                await stopping.wait()
        await portal.stop(cancel_remaining=True)
