"""Which tokens stand in which block of the prefix cache, each common beginning once. On the host alone."""

from __future__ import annotations

import bisect
import collections
import dataclasses
from collections.abc import Sequence

BLOCK = 16  # positions of a block of the prefix cache


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens ``a`` and ``b`` (of one type of sequence) have in common from their beginning on."""
    limit = min(len(a), len(b))
    if a[:limit] == b[:limit]:
        return limit
    low, high = 0, limit  # equal up to low, not up to high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


@dataclasses.dataclass(eq=False, slots=True)
class _Node:
    """Up to a block of tokens behind those of the parent; only full ones have children.

    Children are sorted by their tokens, and none begins with all of another's. So the one that has most in common
    with some tokens stands beside the place that these would have: two are looked at, of however many.
    """

    tokens: list[int]
    block: int
    parent: _Node | None
    children: list[_Node] = dataclasses.field(default_factory=list)


def _tokens_of(node: _Node) -> list[int]:
    return node.tokens


class PrefixTree:
    """Token sequences in blocks of ``block`` tokens, each common beginning once, in a fixed number of blocks.

    A sequence shares whole blocks with others. Where it leaves them inside a block it has that block for itself,
    and still all of the tokens before that point can be found: :meth:`match` is exact to the token.

    When the blocks run out, the one unused for longest goes. A path is always touched from its end to its root, so
    a block is never older than what follows it, and the oldest of all is always the end of a sequence.
    """

    def __init__(self, blocks: int, block: int = BLOCK) -> None:
        self.blocks = blocks
        self._size = block
        self._spare: list[int] = []  # blocks that were given up
        self.added = 0  # tokens that got a place, over time
        self.evicted = 0  # tokens that lost it to others
        self._root = _Node([], -1, None)
        self._order: collections.OrderedDict[_Node, None] = collections.OrderedDict()  # oldest first
        self._fresh = 0  # blocks from this one on were never used

    def __len__(self) -> int:
        """Blocks in use."""
        return len(self._order)

    def match(self, tokens: list[int]) -> tuple[int, list[int]]:
        """The longest stored beginning of ``tokens``: its length, and the blocks it stands in, in order."""
        path, length = self._walk(tokens)
        self._touch(path)
        return length, [node.block for node in path]

    def add(self, tokens: list[int]) -> list[tuple[int, int]]:
        """Stores ``tokens``; where the tree is too small for all of them, a beginning.

        Returns: (block, i) for every block that must now be written with the positions from i blocks on.
        """
        size = self._size
        path, _ = self._walk(tokens)
        if path and path[-1].tokens != tokens[(len(path) - 1) * size :][:size]:
            path.pop()  # left inside this block
        self._touch(path)
        writes: list[tuple[int, int]] = []
        kept = set(path)
        for i in range(len(path), -(-len(tokens) // size)):
            node = path[-1] if path else self._root
            child = self._place(node, tokens[i * size : (i + 1) * size], kept)
            if child is None:
                break
            if child[1]:
                writes.append((child[0].block, i))
            path.append(child[0])
            kept.add(child[0])
        self._touch(path)
        return writes

    def _walk(self, tokens: list[int]) -> tuple[list[_Node], int]:
        node, path, length = self._root, list[_Node](), 0
        while length < len(tokens) and node.children:
            wanted = tokens[length : length + self._size]
            place = bisect.bisect_left(node.children, wanted, key=_tokens_of)
            beside = node.children[max(place - 1, 0) : place + 1]
            most, best = max((common_length(child.tokens, wanted), at) for at, child in enumerate(beside))
            if not most:
                break
            node = beside[best]
            path.append(node)
            length += most
            if most < self._size:
                break
        return path, length

    def _place(self, parent: _Node, tokens: list[int], kept: set[_Node]) -> tuple[_Node, bool] | None:
        """The child of ``parent`` that holds ``tokens``, and whether its block must be written; None: no room."""
        place = bisect.bisect_left(parent.children, tokens, key=_tokens_of)
        for child in parent.children[place : place + 1]:
            if child.tokens[: len(tokens)] == tokens:
                return child, False
        for child in parent.children[max(place - 1, 0) : place]:
            if child.tokens == tokens[: len(child.tokens)]:  # a shorter end: it grows
                self.added += len(tokens) - len(child.tokens)
                child.tokens = tokens
                return child, True
        block = self._take_block(kept)
        if block is None:
            return None
        child = _Node(tokens, block, parent)
        bisect.insort(
            parent.children, child, key=_tokens_of
        )  # its place may have moved with the block's last owner
        self.added += len(tokens)
        return child, True

    def _take_block(self, kept: set[_Node]) -> int | None:
        if self._fresh < self.blocks:
            self._fresh += 1
            return self._fresh - 1
        if self._spare:
            return self._spare.pop()
        oldest = next(iter(self._order), None)
        return None if oldest is None or oldest in kept else self._drop(oldest)

    def evict(self) -> int | None:
        """Drops the end that was unused for longest. Returns: its block; None: nothing is stored."""
        oldest = next(iter(self._order), None)
        if oldest is None:
            return None
        self._spare.append(self._drop(oldest))
        return self._spare[-1]

    def _drop(self, oldest: _Node) -> int:
        del self._order[oldest]
        self.evicted += len(oldest.tokens)
        assert oldest.parent is not None
        siblings = oldest.parent.children
        del siblings[bisect.bisect_left(siblings, oldest.tokens, key=_tokens_of)]
        return oldest.block

    def _touch(self, path: list[_Node]) -> None:
        for node in reversed(path):
            self._order[node] = None
            self._order.move_to_end(node)
