"""What the prompts of one admission have in common with each other and with what is there already.

Host code without a device: slots and tokens in, an order of work out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from thinkprm_jax.sampler.prefixes import PrefixTree, common_length
from thinkprm_jax.sampler.slot import Slot

# A rest of a prompt this short goes through the decode loop beside the other slots' tokens: the steps are taken
# anyway, and a prefill is a call of its own.
SHORT_REST = 16


@dataclasses.dataclass(eq=False)
class Work:
    """A beginning that one or more slots want in their rows.

    Attributes:
      tokens: the beginning, N tokens.
      known: how many of them stand in ``source`` already and are copied to the slots that lack them.
      source: a slot whose row has them, blocks of the shelf, or an earlier work of the same admission.
      goal: how many are to be in the rows in the end: N, or ``known`` where the rest is left to the decode loop.
      stage: works of stage 0 stand on what is there already, those of stage s + 1 on works of stage s.
      done: how many are in the rows of all slots.
    """

    tokens: list[int]
    slots: list[Slot]
    known: int = 0
    source: Slot | list[int] | Work | None = None
    goal: int = 0
    stage: int = 0
    done: int = 0

    @property
    def lacking(self) -> list[Slot]:
        """Slots whose rows lack some of the known tokens."""
        return [slot for slot in self.slots if slot.fed < self.known]


def worth_sharing(known: int, wanted: int, share_from: int) -> bool:
    """Whether ``known`` common tokens of ``wanted`` are taken over: all of them always, a part if it is long."""
    return known == wanted or known >= share_from


def plan(admitted: Sequence[Slot], rows: Sequence[Slot], shelf: PrefixTree | None, share_from: int) -> list[Work]:
    """The works for newly occupied slots, each behind the works it stands on.

    Works are sorted by their tokens, the last first: of all works before it a work has most in common with the one
    just before, and a beginning of another work comes behind that one, of which it is a copy. So no beginning is
    processed twice, whatever the order of the requests.
    """
    by_tokens: dict[tuple[int, ...], Work] = {}
    for slot in admitted:
        tokens = slot.context[: slot.wanted]
        by_tokens.setdefault(tuple(tokens), Work(tokens, [])).slots.append(slot)
    works = [by_tokens[tokens] for tokens in sorted(by_tokens, reverse=True)]
    needed: dict[Work, int] = {}  # how much of a work others copy
    for i, work in enumerate(works):
        _find_source(work, rows, shelf, share_from)
        base = _base(work, works[:i], share_from)
        if base is not None:
            work.known, work.source, work.stage = base[1], base[0], base[0].stage + 1
            needed[base[0]] = max(needed.get(base[0], 0), work.known)
    for work in works:
        rest = len(work.tokens) - work.known
        left_to_decode = (
            0 < work.known >= needed.get(work, 0) and rest <= SHORT_REST and (rest == 0 or len(work.slots) == 1)
        )
        work.goal = work.known if left_to_decode else len(work.tokens)
    return sorted(works, key=lambda work: work.stage)


def _find_source(work: Work, rows: Sequence[Slot], shelf: PrefixTree | None, share_from: int) -> None:
    """The row or the blocks with most of the work's tokens, where that is worth it."""
    source: Slot | list[int] | None = max(rows, key=lambda slot: slot.common(work.tokens))
    known = source.common(work.tokens)
    if shelf is not None and known < len(work.tokens):
        parked, blocks = shelf.match(work.tokens)
        if parked > known:
            known, source = parked, blocks
    if known and worth_sharing(known, len(work.tokens), share_from):
        work.known, work.source = known, source


def _base(work: Work, before: Sequence[Work], share_from: int) -> tuple[Work, int] | None:
    """The work to copy from once it is done, of the earliest stage, and how many tokens; None: not worth it."""
    if not before:
        return None
    common = common_length(before[-1].tokens, work.tokens)
    gain = common - work.known
    if gain <= 0 or not worth_sharing(gain, len(work.tokens) - work.known, share_from):
        return None
    candidates = [other for other in before if common_length(other.tokens, work.tokens) >= common]
    return min(candidates, key=lambda other: other.stage), common
