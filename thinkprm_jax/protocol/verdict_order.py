"""Chains whose verdicts are told apart by their order alone. Part of :mod:`.reading`.

There are such as name no steps, and such in which every verdict stands before the label of its step:

    \\boxed{correct}
    Step 1: 3 + 4 = 7.
    \\boxed{incorrect}
    Step 2: 7 * 2 = 15.

In the usual layout labels come first, so the whole of a round has to be looked at: here it begins with a verdict
and ends with a label, they take turns, and each verdict opens its line and is no farther from the label behind it
than from the text above it.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import TypeVar

from thinkprm_jax.protocol import wording
from thinkprm_jax.protocol.chain_parts import BoxedVerdict, StepMention, StepRole

Part = TypeVar("Part", BoxedVerdict, StepMention)
_LEFT = 90  # characters before a verdict that are looked at
_GAP = 40  # characters between a verdict and its label


def in_order(verdicts: Sequence[BoxedVerdict], num_steps: int) -> dict[int, BoxedVerdict]:
    """Without names the k-th verdict is that of step k; of full repetitions the last counts."""
    rounds = len(verdicts) // num_steps
    if rounds >= 2 and len(verdicts) % num_steps == 0:
        verdicts = verdicts[(rounds - 1) * num_steps :]
    return dict(enumerate(verdicts[:num_steps], start=1))


def labels_behind(
    chain: str,
    rounds: Sequence[int],
    verdicts: Sequence[BoxedVerdict],
    mentions: Sequence[StepMention],
    bounds: Sequence[int],
) -> dict[int, Sequence[int]]:
    """Start of a verdict -> the step whose label is behind it, in rounds of this layout; such labels become AFTER.

    Args:
      rounds: where further ones begin. bounds: where sentences and lines begin.
    """
    found: dict[int, StepMention] = {}
    labels = [mention for mention in mentions if _is_label(mention)]
    for start, end in itertools.pairwise([0, *rounds, len(chain) + 1]):
        ours, theirs = _between(verdicts, start, end), _between(labels, start, end)
        if ours and theirs and ours[0].start < theirs[0].start:
            found |= _pair(chain, ours, theirs, bounds)
    for mention in found.values():
        mention.role = StepRole.AFTER
    return {start: mention.steps for start, mention in found.items()}


def _pair(
    chain: str, verdicts: Sequence[BoxedVerdict], labels: Sequence[StepMention], bounds: Sequence[int]
) -> dict[int, StepMention]:
    """Of one round; {} where it is not of this layout."""
    while verdicts and verdicts[-1].start > labels[-1].start and _opening(chain, verdicts[-1], bounds) is None:
        verdicts = verdicts[:-1]  # in a sentence of its own, behind all: on the whole
    found: dict[int, StepMention] = {}
    above, all_marked = 0, True
    for verdict, label in itertools.zip_longest(verdicts, labels):
        if verdict is None or label is None or not above <= verdict.start < label.start <= verdict.end + _GAP:
            return {}
        opening = _opening(chain, verdict, bounds, above)
        gap = wording.LABEL_BEHIND.fullmatch(chain, verdict.end, label.start)
        if opening is None or gap is None:
            return {}
        blanks = chain[max(above, opening - _GAP) : opening]
        if found and blanks[len(blanks.rstrip()) :].count("\n") < gap[0].count("\n"):
            return {}
        all_marked = all_marked and bool(gap["mark"] or gap["word"])
        found[verdict.start], above = label, label.end
    steps = [label.steps[0] for label in labels]
    # A first verdict may be on a step 1 that has no label, or on the whole.
    apart = len(labels) == 1 and "\n\n" in chain[verdicts[0].end : labels[0].start]
    is_clear = all_marked or (1 in steps and not apart)
    return found if is_clear and len(set(steps)) == len(steps) else {}


def _opening(chain: str, verdict: BoxedVerdict, bounds: Sequence[int], above: int = 0) -> int | None:
    """Where the line or sentence begins at whose head the verdict stands; None: it does not. above: where the
    label above it ends, which may be in its line."""
    start = max(bounds[bisect.bisect_right(bounds, verdict.start) - 1], verdict.start - _LEFT, above)
    return start if wording.VERDICT_OPENS.fullmatch(chain, start, verdict.start) else None


def _between(found: Sequence[Part], start: int, end: int) -> Sequence[Part]:
    """Those that begin between two places."""
    first, last = (bisect.bisect_left(found, place, key=lambda part: part.start) for place in (start, end))
    return found[first:last]


def _is_label(mention: StepMention) -> bool:
    """Of one step, at the head of a line or a sentence."""
    roles = (StepRole.LABEL, StepRole.TURN, StepRole.SUBJECT)
    return mention.group is None and mention.role in roles and len(mention.steps) == 1
