"""Prefix cache of a replica: blocks that stay when their request has ended, until others need the room.

Source: vllm 0.33.0, v1/core/block_pool.py and kv_cache_manager.py: hits are the longest run of known blocks from the start of the
prompt, at most all its tokens but one; a block is found from the step on that fills it; free blocks are taken in the order in which
they were freed, the last of a sequence before its first. SGLang's radix cache (least recently used leaf first) and
TensorRT-LLM's block reuse do the same here. Blocks are kept by the segment of a prompt in which they are known to others.
"""

from __future__ import annotations

from collections import OrderedDict

from advisor.serving.sequence import Sequence

PIECE_TOKENS = 128  # of a preempted sequence, kept or forgotten together: eight blocks of vLLM


class PrefixCache:
    """Segments of prompts in the cache: in use (by how many requests), or idle in the order in which they were freed."""

    def __init__(self, page_tokens: int) -> None:
        self._page_tokens = page_tokens
        self._used: dict[int, int] = {}
        self._idle: OrderedDict[int, int] = OrderedDict()  # identity -> blocks
        self.idle_blocks = 0
        self.looked_up_tokens = self.hit_tokens = 0
        self._unknown = 0  # identities below 0, of what only its own sequence asks for again, or nobody

    def found_tokens(self, sequence: Sequence) -> int:
        """Tokens from the start that are in the cache; never all of what has to be computed."""
        found = 0
        for identity, tokens in sequence.prefix:
            if identity not in self._used and identity not in self._idle:
                break
            found += tokens // self._page_tokens * self._page_tokens
        return min(found, (sequence.known - 1) // self._page_tokens * self._page_tokens)

    def missing_blocks(self, sequence: Sequence) -> int:
        """Blocks of its prefix that no running request holds: they are taken from the free ones."""
        return sum(tokens // self._page_tokens for identity, tokens in sequence.prefix if identity not in self._used)

    def take(self, sequence: Sequence) -> int:
        """The sequence holds its prefix; the blocks that this takes from the free ones."""
        taken = 0
        for identity, tokens in sequence.prefix:
            blocks = tokens // self._page_tokens
            sequence.shared_blocks += blocks
            if identity in self._used:
                self._used[identity] += 1
                continue
            self._used[identity] = 1
            taken += blocks
            if identity in self._idle:
                self.idle_blocks -= self._idle.pop(identity)
        return taken

    def release(self, sequence: Sequence) -> int:
        """The sequence no longer holds its prefix; the blocks that become free, idle with what they hold."""
        freed = 0
        for identity, tokens in reversed(sequence.prefix):
            self._used[identity] -= 1
            if not self._used[identity]:
                del self._used[identity]
                self._idle[identity] = blocks = tokens // self._page_tokens
                self.idle_blocks += blocks
                freed += blocks
        sequence.shared_blocks = 0
        return freed

    def keep(self, tokens: int) -> tuple[tuple[int, int], ...]:
        """Blocks that a preempted sequence leaves, as a prefix of its own; those at its end are forgotten first."""
        pieces = []
        for start in range(0, tokens // self._page_tokens * self._page_tokens, PIECE_TOKENS):
            self._unknown -= 1
            pieces.append((self._unknown, min(PIECE_TOKENS, tokens - start)))
        for identity, length in reversed(pieces):
            self._idle[identity] = length // self._page_tokens
            self.idle_blocks += length // self._page_tokens
        return tuple(pieces)

    def leave(self, blocks: int) -> None:
        """Blocks of an ended sequence that nobody asks for again: they are taken in their turn."""
        if self._idle:
            self._unknown -= 1
            self._idle[self._unknown] = blocks
            self.idle_blocks += blocks

    def forget(self, free_blocks: int) -> None:
        """Idle blocks that have been taken for something else, the first freed first."""
        while self._idle and self.idle_blocks > free_blocks:  # a lone sequence may outgrow the cache: then nothing is idle
            _, blocks = self._idle.popitem(last=False)
            self.idle_blocks -= blocks
