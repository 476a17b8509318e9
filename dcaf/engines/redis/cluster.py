"""Which server of a cluster has which rows, as far as it is known, and what a reply that is an error means for the next try.

>>> places = Places(is_cluster=True)
>>> places.take_in([[0, 8000, [b"one", 7000, b"id"]], [8001, 16383, [b"two", 7001, b"id"]]], asked=("one", 7000))
>>> places.find(Request((), partition=1)), places.nodes
(('two', 7001), [('one', 7000), ('two', 7001)])

One server that is no cluster is a place with all rows. Redis says with ``MOVED`` where rows are now; nothing was done then, so the
command is sent there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, Final

from dcaf.core.errors import EngineError
from dcaf.core.importing import extra
from dcaf.engines.redis.calls import HERE, PARTITIONS, Node, Request
from dcaf.engines.redis.errors import build_error

with extra("dcaf.engines.redis.engine", "dcaf[redis]"):
    from redis import exceptions as library
    from redis.crc import key_slot

SLOTS: Final = (b"CLUSTER", b"SLOTS")
PAUSE_S: Final = 0.02
"""How long to wait before a command is sent again while rows are moved."""

LAST_TRY: Final = 0.9
"""After so much of a call's time a command is not sent again: its answer might come too late to tell what became of it."""

NOT_COVERED: Final = "Nothing was written: the cluster has nobody for some of its slots (CLUSTERDOWN)."


class Places:
    """Where partitions are. Threads and event loops share one, and replace what is in it as a whole.

    What was known stays in use: a server that does not answer is not the harm of those who want another. Who wants the one that has
    not answered asks anew before where everything is.

    Args:
        is_cluster: Whether there are several servers.
        shuffle: Puts a list in an order by chance, so that not all processes ask the same server where everything is.
    """

    def __init__(self, *, is_cluster: bool, shuffle: Callable[[list[Node]], None] = random.shuffle) -> None:
        self.is_cluster: bool = is_cluster
        self._shuffle = shuffle
        self._node_of: dict[int, Node] = {} if is_cluster else dict.fromkeys(range(PARTITIONS), HERE)
        self._suspects: dict[Node, None] = {}

    @property
    def nodes(self) -> list[Node]:
        """All servers that have rows."""
        return sorted(set(self._node_of.values()))

    @property
    def examples(self) -> dict[Node, int]:
        """Each server, and one of its partitions."""
        return {node: partition for partition, node in self._node_of.items()}

    def knows(self, request: Request | None) -> bool:
        """Whether it is known where a request goes; None for all requests."""
        if request is None:
            return bool(self._node_of) and not self._suspects
        node = request.node or self._node_of.get(request.partition or 0)
        return node is not None and node not in self._suspects

    def find(self, request: Request) -> Node:
        """The server of a request.

        Raises:
            EngineError: The cluster has none.
        """
        node = request.node or self._node_of.get(request.partition or 0)
        if node is None:
            raise EngineError(NOT_COVERED)
        return node

    def list_candidates(self, seeds: Iterable[Node]) -> list[Node]:
        """Whom to ask where everything is: those that are known, then those of the url, and last those that have not answered."""
        known, suspects = self.nodes, list(self._suspects)
        self._shuffle(known)
        return list(dict.fromkeys([*(node for node in [*known, *seeds] if node not in suspects), *suspects]))

    def list_departed(self, nodes: Iterable[Node]) -> list[Node]:
        """Those of some servers that have no rows any more."""
        return sorted(set(nodes) - set(self._node_of.values()))

    def suspect(self, node: Node) -> None:
        """Note that a server has not answered."""
        if self.is_cluster:
            self._suspects = {**self._suspects, node: None}

    def take_in(self, reply: Any, asked: Node) -> None:
        """Note what ``CLUSTER SLOTS`` says: ranges, each with its master first.

        Args:
            reply: The reply.
            asked: Who has said it. A server that does not know its own address says nothing for it.

        Raises:
            EngineError: It says nothing.
        """
        if isinstance(reply, Exception):
            raise build_error(reply, writes=False)
        if not reply:
            raise EngineError(NOT_COVERED)
        ranges = [(first, last, _name(master[0], asked), int(master[1])) for first, last, master, *_ in reply]
        found: dict[int, Node] = {}
        for partition, slot in enumerate(_PARTITION_SLOTS):
            for first, last, host, port in ranges:
                if first <= slot <= last:
                    found[partition] = (host, port)
        self._node_of, self._suspects = found, {}

    def move(self, slot: int, node: Node) -> None:
        """Note that a slot is elsewhere."""
        moved = {partition: node for partition, at in enumerate(_PARTITION_SLOTS) if at == slot}
        self._node_of = {**self._node_of, **moved}

    def redirect(self, request: Request, error: Exception, asked: Node) -> float:
        """Prepare a command to be sent again.

        Args:
            request: The command.
            error: The reply.
            asked: Who has sent it.

        Returns:
            Seconds to wait before that.

        Raises:
            EngineError, CommitUnknownError: It is not to be sent again.
        """
        if not self.is_cluster or request.partition is None:
            raise build_error(error, writes=request.writes)
        request.is_sent = False
        if isinstance(error, library.TryAgainError) or (_is_ask(error) and request.needs_all):
            request.node, request.is_asking = None, False
            return PAUSE_S
        if not isinstance(error, library.AskError):
            raise build_error(error, writes=request.writes)
        node = (error.host or asked[0], error.port)
        request.is_asking = _is_ask(error)
        request.node = node if request.is_asking else None
        if not request.is_asking:
            self.move(error.slot_id, node)
        request.turns += 1
        return 0.0 if request.turns == 1 else PAUSE_S  # two servers may send it to each other for a while


def _is_ask(error: Exception) -> bool:
    return isinstance(error, library.AskError) and not isinstance(error, library.MovedError)


def _name(host: Any, asked: Node) -> str:
    name = host.decode() if isinstance(host, bytes) else host
    return name if name and name != "?" else asked[0]


_PARTITION_SLOTS: Final = [key_slot(b"{%d}" % partition) for partition in range(PARTITIONS)]
