"""Reading the step verdicts out of a verification chain, whatever shape the chain has.

A verdict is a box that says correct or incorrect, and it belongs to the step named nearest before it. In this
order: the step that the box names itself; that of its row in a table; the number right before it; the step that
its sentence is about; the step named right behind it; the step under discussion, which a label, a turn (`moving on
to step 2`) or the head of a sentence has named. The last verdict on a step stands. A chain that names no steps is
read in order. docs/protocol.md has the rules with examples; the patterns are in :mod:`.wording`, and what only
some chains have in :mod:`.step_groups`, :mod:`.verdict_order` and :mod:`.chain_tables`.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from thinkprm_jax.protocol import step_groups, verdict_order, wording
from thinkprm_jax.protocol.chain_parts import BoxedVerdict, NamedVerdict, StepMention, StepRole, StepTopic
from thinkprm_jax.protocol.chain_tables import ChainTables, list_items

_LEFT = 90  # characters before a step or a verdict that say what it is
_BOX = 300  # characters a box may hold


@dataclass(frozen=True)
class ChainReading:
    """What a chain says about each step; every tuple is as long as the steps.

    labels: 1 correct, 0 incorrect, None not judged; 0 for every step after the first incorrect one.
    judged: whether the chain itself gave a verdict for the step.
    positions: offset in the chain of the word (correct, incorrect) that decided a judged step.
    first_error: index from 0 of the first step judged incorrect.
    complete: every step up to and including the first incorrect one is judged.
    inverted: the word there is negated, and the verdict its opposite (`not correct`).
    """

    labels: tuple[int | None, ...]
    judged: tuple[bool, ...]
    positions: tuple[int | None, ...]
    first_error: int | None
    complete: bool
    inverted: tuple[bool, ...] = ()


def read_chain(chain: str, num_steps: int) -> ChainReading:
    """The verdicts of a chain on `num_steps` steps. Never raises; never a wrong length."""
    num_steps, chain = max(num_steps, 0), chain.translate(wording.BLANKS)
    verdicts = [] if num_steps == 0 else _spoken(chain, list(_boxes(chain)))
    found = _ChainReader(chain, num_steps, verdicts).read() if verdicts else {}
    return _result(found, num_steps)


def find_verdicts(chain: str) -> list[tuple[int, int, int]]:
    """(start, end, label) of every verdict in the text, in order; from `\\boxed` through its closing brace. One
    that only speaks of verdicts is here too."""
    return [(verdict.start, verdict.end, verdict.label) for verdict in _boxes(chain)]


def contradicts(score: float | None, labels: Sequence[int]) -> bool | None:
    """Whether the score of a whole solution says one thing and the labels of its steps another.

    The score says correct above one half and incorrect below it; the labels say correct where all are 1. A score
    of exactly one half says nothing. None: one of the two is missing.
    """
    if score is None or not labels:
        return None
    return score != 0.5 and (score > 0.5) != (0 not in labels)


class _ChainReader:
    """Walks through mentions and verdicts in their order, and keeps the step under discussion."""

    def __init__(self, chain: str, num_steps: int, verdicts: Sequence[BoxedVerdict]) -> None:
        self._chain, self._num_steps, self._verdicts = chain, num_steps, verdicts
        ends = [match.end() for match in wording.SENTENCE_END.finditer(chain)]
        self._lines = [0, *(match.end() for match in wording.LINE_END.finditer(chain))]
        self._bounds = sorted({*self._lines, *ends, *(verdict.end for verdict in verdicts)})
        self._rounds = [match.start() for match in wording.ROUND.finditer(chain)]
        self._tables: ChainTables | None = None
        self._topic: StepTopic | None = None
        self._first_topic: StepTopic | None = None
        self._labels, self._spoken_of = 0, set[int]()
        self._judged: dict[int, set[int]] = {}  # round -> steps
        self._mentions = sorted(self._find_mentions(), key=lambda mention: mention.start)
        self._behind: Mapping[int, Sequence[int]] = {}  # start of a verdict -> the step whose label is behind it
        if self._rounds or (self._mentions and verdicts[0].start < self._mentions[0].start):
            self._behind = verdict_order.labels_behind(chain, self._rounds, verdicts, self._mentions, self._bounds)

    def read(self) -> dict[int, BoxedVerdict]:
        """Step (from 1) -> its verdict."""
        found: list[NamedVerdict] = []
        upcoming = last_end = 0
        for verdict in self._verdicts:
            while upcoming < len(self._mentions) and self._mentions[upcoming].start < verdict.start:
                self._hear(self._mentions[upcoming])
                upcoming += 1
            named = self._named(verdict, upcoming, last_end)
            if named is not None:
                found.append(named)
            last_end = verdict.end
        return self._settle(found)

    def _settle(self, found: Sequence[NamedVerdict]) -> dict[int, BoxedVerdict]:
        named = [one for one in found if one.steps is not None]
        everything = [one.verdict for one in found]
        if self._num_steps == 1:  # the whole is the step
            everything = everything or list(self._verdicts)
        if not named:
            return verdict_order.in_order(everything, self._num_steps)
        carried = [one.carried for one in found]
        # The solution was restated under labels and judged behind them all. (Two under one are a correction.)
        restated = self._labels > 1 and carried[0] is not None and all(one is carried[0] for one in carried)
        if restated and len(found) >= max(self._num_steps, 3):
            return verdict_order.in_order(everything, self._num_steps)
        settled: dict[int, BoxedVerdict] = {}
        # Verdicts before the first label count where they fill the steps before it exactly.
        before = list(itertools.takewhile(lambda one: one.steps is None, found))
        first = (named[0].steps or (0,)) if self._first_topic is None else self._first_topic.steps
        if before and len(before) == first[0] - 1:
            settled = verdict_order.in_order([one.verdict for one in before], self._num_steps)
        for number, group in itertools.groupby(named, lambda one: self._round(one.verdict.start)):
            inside = list(group)
            # A round that names no step, and judges them all.
            stale = [one for one in inside if one.carried and self._round(one.carried.start) < number]
            if len(stale) == len(inside) == self._num_steps > 1:
                settled |= verdict_order.in_order([one.verdict for one in inside], self._num_steps)
                continue
            for one in inside:
                steps = (step for step in one.steps or () if 1 <= step <= self._num_steps)
                settled |= dict.fromkeys(steps, one.verdict)
        return settled

    def _hear(self, mention: StepMention) -> None:
        """Lets a mention change the step under discussion."""
        topic, role = self._topic, mention.role
        if mention.offset:
            mention.steps = (max(1, (0 if topic is None else topic.steps[-1]) + mention.offset),)
        self._labels += role is StepRole.LABEL
        # While a step with a label waits for its verdict, the others are spoken of in passing.
        waits = topic is not None and not topic.judged and not topic.soft
        if topic is not None and waits and self._round(mention.start) == self._round(topic.start):
            follows = mention.opens_paragraph and mention.steps[0] == topic.steps[-1] + 1
            turns = role is StepRole.TURN and mention.steps[0] not in self._spoken_of
            changes = role is StepRole.LABEL or turns or (role is StepRole.SUBJECT and follows)
        else:
            changes = role in (StepRole.LABEL, StepRole.TURN, StepRole.SUBJECT)
        if changes:
            self._topic = StepTopic(mention.steps, mention.start, soft=role is not StepRole.LABEL)
            self._first_topic = self._first_topic or self._topic

    def _round(self, place: int) -> int:
        """The number of the thinking round that a place lies in, from 0."""
        return bisect.bisect_right(self._rounds, place)

    def _named(self, verdict: BoxedVerdict, upcoming: int, last_end: int) -> NamedVerdict | None:
        """The verdict with its steps; None: it is on the whole solution. last_end: of the verdict before it."""
        topic, line = self._topic, _start_of(self._lines, verdict.start)
        steps, group = self._beside(verdict, line, last_end), False
        if steps is None:
            sentence = _start_of(self._bounds, verdict.start)
            left = self._chain[max(sentence, verdict.start - _LEFT) : verdict.start]
            subject = self._subject(verdict, sentence, upcoming, left)
            if subject is not None:
                steps, group = subject.steps, subject.group is not None
                verdict = _opposite(verdict) if subject.negated else verdict
            else:
                steps = self._named_after(verdict, upcoming)
            if steps is None and self._is_on_whole(left):
                return None
        carried = None if steps is not None else topic
        if steps is None:
            steps = None if topic is None else topic.steps
        elif steps and not group and (topic is None or topic.judged):
            self._topic = topic = StepTopic(steps, verdict.start, soft=True)
            self._first_topic = self._first_topic or topic
        if topic is not None and steps is not None:
            topic.judged = topic.judged or topic.steps == steps or (group and {*topic.steps} <= {*steps})
        self._spoken_of.update(steps or ())
        self._judged.setdefault(self._round(verdict.start), set()).update(steps or ())
        return NamedVerdict(verdict, steps, carried)

    def _beside(self, verdict: BoxedVerdict, line: int, last_end: int) -> Sequence[int] | None:
        """The steps that are said right where the verdict stands: in its box, in its row of a table, by a number
        right before it, by the label behind it where the whole chain has it so."""
        row = None
        if wording.ROW.match(self._chain, line):
            numbers = functools.partial(_numbers, limit=self._num_steps)
            self._tables = self._tables or ChainTables(self._chain, self._lines, numbers)
            row = self._tables.steps(line, verdict.start)
        number = self._number_before(verdict, max(line, last_end))
        return self._steps(verdict.names) or row or number or self._behind.get(verdict.start)

    def _subject(self, verdict: BoxedVerdict, sentence: int, upcoming: int, left: str) -> StepMention | None:
        """The step that the sentence of the verdict is about, where it names one."""
        topic, referred = self._topic, None
        free = topic is None or topic.judged
        same = wording.SAME_STEP.search(left)
        own = same is not None and (bool(same["step"]) or (topic is not None and not topic.soft))
        for index in range(upcoming - 1, max(0, upcoming - 20) - 1, -1):
            mention = self._mentions[index]
            if mention.start < sentence:
                break
            if mention.role is StepRole.AFTER:
                continue
            between = self._chain[mention.end : verdict.start]
            linked = len(between) <= _LEFT and wording.COPULA.fullmatch(between)
            if linked and (free or mention.role is not StepRole.REFERENCE or re.search(r"\w", between)):
                return self._whole_subject(index, verdict, upcoming, sentence)
            if mention.group is not None:
                if free and mention.heads and not own and wording.PLURAL.search(left):
                    return self._whole_subject(index, verdict, upcoming, sentence)
                continue
            if mention.role in (StepRole.LABEL, StepRole.TURN):
                return mention
            if mention.role is StepRole.SUBJECT:
                # An earlier step at the head of a sentence explains the one that has no verdict yet.
                if free or topic is None or topic.soft or mention.steps[0] >= topic.steps[0]:
                    return mention
            elif free and mention.role is StepRole.PASSING and not (same and same["step"]):
                return mention
            elif free and mention.role is StepRole.REFERENCE and not own:
                referred = referred or mention
        return referred

    def _whole_subject(self, index: int, verdict: BoxedVerdict, upcoming: int, sentence: int) -> StepMention:
        """A mention that is the subject of a verdict, with all the steps that it means."""
        mention, other = self._mentions[index], self._mentions[max(0, index - 1)]
        is_joined = sentence <= other.start < mention.start
        if mention.group is None and not is_joined:
            return mention
        number, topic = self._round(verdict.start), self._topic
        topic = topic if topic is not None and self._round(topic.start) == number else None
        follower = self._mentions[upcoming] if upcoming < len(self._mentions) else None
        scene = step_groups.Scene(self._num_steps, topic, self._judged.get(number, ()))
        behind = "" if follower is None else self._chain[verdict.end : follower.start]
        mention = step_groups.resolved(mention, scene, follower, behind)
        between = self._chain[other.end : mention.start]
        return step_groups.with_another(mention, other, between, scene) if is_joined else mention

    def _named_after(self, verdict: BoxedVerdict, upcoming: int) -> Sequence[int] | None:
        """`\\boxed{incorrect} for Step 2`"""
        if upcoming == len(self._mentions):
            return None
        mention = self._mentions[upcoming]
        between = self._chain[verdict.end : mention.start] if mention.start - verdict.end < _LEFT else ""
        beside = wording.NAMED_AFTER.fullmatch(between) and wording.AFTERWARDS.match(self._chain, mention.end)
        below = wording.NAMED_BELOW.fullmatch(between) and wording.LINE_ENDS.match(self._chain, mention.end)
        if not (beside or below):
            return None
        mention.role = StepRole.AFTER
        return self._whole_subject(upcoming, verdict, upcoming + 1, mention.start).steps or None

    def _is_on_whole(self, left: str) -> bool:
        match = None if wording.OF_A_STEP.search(left) else wording.WHOLE.search(left)
        return match is not None and (self._topic is None or self._topic.judged or bool(match["solution"]))

    def _number_before(self, verdict: BoxedVerdict, start: int) -> Sequence[int] | None:
        """`2. \\boxed{incorrect}`; ``start``: of the line, or behind the verdict before it in the line."""
        left = self._chain[start : min(verdict.start, start + _LEFT)]
        match = wording.ITEM_ALONE.fullmatch(left)
        number = int(match[1] or (match[2] if self._topic is None else 0)) if match else 0
        return (number,) if 1 <= number <= self._num_steps else None

    def _find_mentions(self) -> Iterator[StepMention]:
        """All mentions of steps outside of boxes; and the items of lists where no line begins with a step."""
        boxes = [verdict.start for verdict in self._verdicts]
        mentions: list[StepMention] = []
        opened: set[int] = set()  # rounds in which a line begins with a numbered step
        before, end = -1, 0  # where the sentence of the mention before begins, where the mention ends
        prefix: re.Match[str] | None = None  # `everything before`, in front of the next one
        for match in wording.MENTION.finditer(self._chain):
            box = bisect.bisect_right(boxes, match.start()) - 1
            if match.start() < end or (box >= 0 and match.start() < self._verdicts[box].end):
                continue
            if match["bound"]:
                prefix = match
                continue
            bound = _start_of(self._bounds, match.start())
            mention = self._mention(match, bound, first=bound != before, prefix=prefix)
            before, prefix, end = bound, None, mention.end
            mentions.append(mention)
            if match["ordinal"] is None and mention.opens_line and mention.role in (StepRole.LABEL, StepRole.TURN):
                opened.add(self._round(match.start()))
        for mention in mentions:
            is_head = mention.role in (StepRole.LABEL, StepRole.SUBJECT)
            if mention.ordinal and is_head and self._round(mention.start) in opened:
                mention.role = StepRole.SUBJECT if mention.offset else StepRole.PASSING
        yield from mentions
        bounds = [0, *self._rounds, len(self._chain)]
        for number, (start, end) in enumerate(itertools.pairwise(bounds)):
            if number not in opened:
                yield from list_items(self._chain, start, end, boxes)

    def _mention(self, match: re.Match[str], bound: int, first: bool, prefix: re.Match[str] | None) -> StepMention:
        """prefix: words in front of it that make it the bound of a group."""
        role = self._role(match if prefix is None else prefix, bound, first)
        mention = StepMention(match.start(), match.end(), self._steps(match) or (), role)
        if match["all"] or prefix or wording.BOUND.match(self._chain, match.end()):
            few = _number((match["few"] or match["fewer"] or match["few_zh"] or "") if match["all"] else "")
            group = step_groups.group_of(self._chain, match, prefix, mention, few, self._num_steps)
            if group is not None:
                return group
        mention.offset = wording.OFFSETS.get((match["ordinal"] or "").lower(), 0)
        mention.ordinal = match["ordinal"] is not None or match["ordinals"] is not None
        mention.opens_line = self._chain[bound - 1 : bound] in ("", "\n")
        mention.opens_paragraph = mention.opens_line and self._chain[bound - 2 : bound] in ("", "\n\n")
        return mention

    def _steps(self, match: re.Match[str] | None) -> Sequence[int] | None:
        """The steps that a mention names, from 1; () where it is a group without numbers."""
        if match is None:
            return None
        if match["all"] or match["bound"]:
            return ()
        if match["ordinal"]:
            word = match["ordinal"].lower()
            if word in wording.LAST:
                return (self._num_steps,)
            return (_number(word) or _number(word[:-2]),)
        if match["count"]:
            count = min(_number(match["count"]), self._num_steps)
            from_end = match[0].lower().startswith(("last", "最后", "后"))
            first = self._num_steps - count + 1 if from_end else 1
            return range(first, first + count)
        text = next(match[name] for name in ("plural", "single", "ordinals", "zh") if match[name])
        found = _numbers(text, self._num_steps)
        return _numbers(text.partition("-")[0], self._num_steps) if match["single"] and 0 in found else found

    def _role(self, match: re.Match[str], bound: int, first: bool) -> StepRole:
        """bound: where its sentence begins. first: of the sentence."""
        start = max(bound, match.start() - _LEFT)
        left = self._chain[start : match.start()]
        if start == bound and wording.OPENING.fullmatch(left):
            return StepRole.LABEL if wording.LABEL.match(self._chain, match.end()) else StepRole.SUBJECT
        if wording.TURNING.search(left):
            return StepRole.TURN
        place = wording.PLACE.search(left)
        if place and start == bound and wording.OPENING.fullmatch(left[: place.start()]):
            return StepRole.SUBJECT if place["work"] else StepRole.TURN
        if wording.FAULT_IN.search(left):
            return StepRole.SUBJECT if first else StepRole.REFERENCE
        in_brackets = max(left.rfind("("), left.rfind("（")) > max(left.rfind(")"), left.rfind("）"))
        return StepRole.REFERENCE if in_brackets or wording.REFERENCE.search(left) else StepRole.PASSING


def _boxes(chain: str) -> Iterator[BoxedVerdict]:
    """The boxes that hold a verdict. One that the chain does not close goes to the end of its line."""
    starts = list(wording.BOX.finditer(chain))
    for index, box in enumerate(starts):
        limit = min(box.end() + _BOX, starts[index + 1].start() if index + 1 < len(starts) else len(chain))
        depth, close = 1, None
        for brace in wording.BRACE.finditer(chain, box.end(), limit):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if depth == 0:
                close = brace
                break
        content = chain[box.end() : close.start() if close else limit]
        if close is None:
            content = content.partition("\n")[0] if "\n" in content.strip() else content
        read = _read_box(content)
        if read is not None:
            label, place, inverted, names = read
            end = close.end() if close else box.end() + len(content)
            yield BoxedVerdict(box.start(), end, label, box.end() + place, inverted, names)


def _read_box(content: str) -> tuple[int, int, bool, re.Match[str] | None] | None:
    """(label, offset of the word, whether it is negated, the step it names) of what stands in a box."""
    text = wording.STYLING.sub(lambda match: " " * len(match[0]), content)
    word = wording.VERDICT_WORD.search(text)
    if word is None or not wording.BOX_TAIL.match(text, word.end()):
        return None
    lead = text[: word.start()]
    negation = wording.BOX_NEGATION.search(lead)
    start = lead[: negation.start()] if negation else lead
    if not wording.BOX_LEAD.fullmatch(start):
        return None
    good = bool(word["good"] or word["zh_good"] or word["no_fault"])
    if good and wording.PARTLY.search(start):
        return None
    return int(good != bool(negation)), word.start(), bool(negation), wording.MENTION.search(start)


def _spoken(chain: str, verdicts: Sequence[BoxedVerdict]) -> list[BoxedVerdict]:
    """Without those that only speak of verdicts, and with the negation that stands before a box."""
    dropped: set[int] = set()
    for one, other in itertools.pairwise(verdicts):
        gap = chain[one.end : other.start] if other.start - one.end < 20 else "."
        if one.label != other.label and wording.EITHER.fullmatch(gap):
            dropped |= {one.start, other.start}
    kept = []
    for verdict in verdicts:
        if verdict.start in dropped or wording.IF_IT_IS.match(chain, verdict.end):
            continue
        negated = wording.NEGATED.search(chain[max(0, verdict.start - 30) : verdict.start])
        kept.append(_opposite(verdict) if negated else verdict)
    return kept


def _opposite(verdict: BoxedVerdict) -> BoxedVerdict:
    return dataclasses.replace(verdict, label=1 - verdict.label, inverted=not verdict.inverted)


def _numbers(text: str, limit: int) -> Sequence[int]:
    """`2`, `1-3`, `1, 2 and 4`, in figures or words; none beyond ``limit`` inside of a range."""
    found: list[int] = []
    end = 0
    for match in wording.NUMBERS.finditer(text):
        number = limit if match["number"].lower() in wording.LAST else _number(match["number"])
        if found and wording.RANGE.search(text, end, match.start()):
            if number < found[-1]:
                return (0,)  # no step
            found += range(found[-1] + 1, min(number, limit) + 1)
        else:
            found.append(number)
        end = match.end()
    return tuple(found)


def _number(text: str) -> int:
    """A number in figures or words; 0 where it is none."""
    known = wording.NUMBER_WORDS
    return int(text) if text.isdecimal() else known.get(text, known.get(text.lower(), 0))


def _start_of(bounds: Sequence[int], place: int) -> int:
    """The last bound at or before a place."""
    return bounds[bisect.bisect_right(bounds, place) - 1]


def _result(found: Mapping[int, BoxedVerdict], num_steps: int) -> ChainReading:
    verdicts = [found.get(step) for step in range(1, num_steps + 1)]
    labels = [None if verdict is None else verdict.label for verdict in verdicts]
    first_error = labels.index(0) if 0 in labels else None
    needed = labels if first_error is None else labels[: first_error + 1]
    if first_error is not None:
        labels[first_error:] = [0] * (num_steps - first_error)
    return ChainReading(
        labels=tuple(labels),
        judged=tuple(verdict is not None for verdict in verdicts),
        positions=tuple(None if verdict is None else verdict.position for verdict in verdicts),
        first_error=first_error,
        complete=None not in needed,
        inverted=tuple(verdict is not None and verdict.inverted for verdict in verdicts),
    )
