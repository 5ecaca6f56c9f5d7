"""Reading a chain token by token: an automaton over bytes, laid out as tables over the tokens of a vocabulary.

A device has no regular expressions, but it can look things up. The automaton knows the form that verifiers are
trained to write,

    Step 1: <critique> The step is \\boxed{correct}

    Step 2: <critique> The step is \\boxed{incorrect}
    </think>
    Is the solution correct?

and says at every token what it completes: the label of a step, a verdict, the question (which ends the chain), or
the beginning of another round. It reads bytes, so it does not matter into which tokens a vocabulary cuts the text.

What :mod:`thinkprm_jax.protocol.reading` might understand otherwise it marks as unclear: a step that is named
anywhere but in a label, a box anywhere but at the end of a sentence `The step is`. A chain without such a mark is
read as there; one with a mark may be.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Iterable, Sequence

import numpy as np

MOST_LABELS = 99
# What a token completes: 0 nothing, 1 to 99 the label of that step, else:
INCORRECT, CORRECT, ROUND, STOP = 100, 101, 102, 103
UNCLEAR = 1 << 10  # beside any of them

_BOX = "The step is \\boxed{"
_VERDICTS = {before + _BOX + word + "}": label for before in ("\n", ". ")
             for word, label in (("incorrect", INCORRECT), ("correct", CORRECT))}  # fmt: skip
_LABELS = {f"\nStep {number}:": number for number in range(1, MOST_LABELS + 1)}
_ROUNDS = ("et me double check", "et me double-check", "et's verify again", "id I miss something")
_LEAD_IN = "verify step by step"
# `the step says`: no number and no word for one follows, and none stands before it.
_PLAIN_LETTERS = "".join(sorted(set(string.ascii_lowercase) - set("otfsen")))
_PLAIN = [f"{head} step {tail}" for head in ("he", "his")
          for tail in (*_PLAIN_LETTERS, "sa", "st", "sh", "su", "sk")]  # fmt: skip
_NAMES = ("step", "Step", "STEP", "paragraph", "Paragraph", "PARAGRAPH", "步", "段")
_BOXES = ("boxed", "framebox", "fbox", "bbox", "dbox")
_NAMED = re.compile("|".join(name.encode().decode("latin-1") for name in (*_NAMES, *_BOXES)))
# What makes such a word clear: it stands in one of the groups.
_CLEAR = (
    re.compile(r"\n(Step) [1-9]\d?:"),
    re.compile(rf"h(?:e|is) (step) (?:[{_PLAIN_LETTERS}]|s[athuk])"),
    re.compile(r"verify (step) by (step)"),
    re.compile(r"(?:\n|\. )The (step) is \\(boxed)\{(?:in)?correct\}\n"),
)


@dataclasses.dataclass(frozen=True)
class ChainScanner:
    """The automaton over the tokens of a vocabulary; A states, U kinds of tokens.

    Attributes:
      kinds: int32 [V], tokens that do the same in every state are of one kind.
      next: int16 [A, U], the state behind a token. events: int16 [A, U], what it completes.
      in_box: bool [A], right behind `\\boxed{`, where the word of a verdict begins.
      start: the state of a chain without tokens. question: the state right behind the question.
    """

    kinds: np.ndarray
    next: np.ndarray
    events: np.ndarray
    in_box: np.ndarray
    start: int
    question: int

    def scan(self, ids: Iterable[int]) -> list[int]:
        """What each token of a chain completes; the same as on the device, for tests and measurements."""
        state, events = self.start, []
        for id in ids:
            kind = self.kinds[id]
            events.append(int(self.events[state, kind]))
            state = int(self.next[state, kind])
        return events


def make_scanner(tokens: Sequence[bytes], question: str, stops: Sequence[str] = ()) -> ChainScanner:
    """The tables for a vocabulary.

    Args:
      tokens: [V], the bytes that each adds to a text; b"" of control tokens.
      question: the text that ends a chain. stops: others that do, such as `</think>` where it is no token.
    """
    automaton = _Automaton(question, stops)
    kinds, following, events = _over_tokens(automaton, tokens)
    return ChainScanner(
        kinds=kinds,
        next=following,
        events=events,
        in_box=np.array([text.endswith(_BOX.encode()) for text in automaton.texts]),
        start=automaton.state_of("\n"),
        question=automaton.state_of(question),
    )


class _Automaton:
    """Aho and Corasick's: a state is the longest end of the text that some pattern begins with.

    texts: of the states. next, events: int16 [A, 256].
    """

    def __init__(self, question: str, stops: Sequence[str]) -> None:
        self._events = {**_LABELS, **_VERDICTS, **dict.fromkeys(_ROUNDS, ROUND)}
        self._events |= dict.fromkeys((question, *stops), STOP)
        more = (*(verdict + "\n" for verdict in _VERDICTS), _LEAD_IN, *_PLAIN, *_NAMES, *_BOXES)
        known: dict[bytes, int] = {b"": 0}
        for pattern in (*self._events, *more):
            text = pattern.encode()
            for length in range(1, len(text) + 1):
                known.setdefault(text[:length], len(known))
        self.texts = list(known)
        self._known = known
        self._completed = {text.encode(): event for text, event in self._events.items()}
        self.next, self.events = self._tables()

    def state_of(self, text: str) -> int:
        return self._known[text.encode()]

    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.texts)
        following, events = np.zeros((count, 256), np.int16), np.zeros((count, 256), np.int16)
        shorter = np.zeros(count, int)  # the state of the longest proper end
        for text in sorted(self.texts, key=len):
            state = self._known[text]
            fallback = following[shorter[state]].copy() if text else np.zeros(256, np.int16)
            following[state] = fallback
            for byte in range(256):
                child = self._known.get(text + bytes([byte]))
                if child is not None:
                    shorter[child] = fallback[byte] if text else 0
                    following[state, byte] = child
        used = set(b"".join(self.texts))
        other = min(set(range(256)) - used)
        for state, text in enumerate(self.texts):
            events[state] = self._event(text + bytes([other]), b"")  # every byte that no pattern has
            for byte in used:
                events[state, byte] = self._event(text + bytes([byte]), self.texts[following[state, byte]])
        return following, events

    def _event(self, text: bytes, kept: bytes) -> int:
        """What the last byte of a text completes, of which the state behind it keeps an end."""
        event = next((event for end, event in self._completed.items() if kept.endswith(end)), 0)
        lost = len(text) - len(kept)
        unclear = any(place < lost for place in _unclear_places(text)) if lost else False
        return event | UNCLEAR if unclear else event


def _unclear_places(text: bytes) -> list[int]:
    """Where a step or a box is named in a way that is not clear, or not yet."""
    shown = text.decode("latin-1")
    named = [match.start() for match in _NAMED.finditer(shown)]
    if not named:
        return []
    clear: set[int] = set()
    for pattern in _CLEAR:
        for match in pattern.finditer(shown):
            clear |= {match.start(group) for group in range(1, pattern.groups + 1)}
    return [place for place in named if place not in clear]


def _over_tokens(automaton: _Automaton, tokens: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(kinds [V], next [A, U], events [A, U])."""
    states = len(automaton.texts)
    # Bytes that no pattern has are all alike: most tokens then are of few kinds before anything is computed.
    used = set(b"".join(automaton.texts))
    other = min(set(range(256)) - used)
    plain = bytes(byte if byte in used else other for byte in range(256))
    numbers: dict[bytes, int] = {}
    first = np.array([numbers.setdefault(_shortened(token.translate(plain), other), len(numbers))
                      for token in tokens], np.int32)  # fmt: skip
    columns: dict[bytes, int] = {}
    kinds = np.zeros(len(numbers), np.int32)
    distinct: list[np.ndarray] = []
    texts = sorted(numbers, key=len)  # those of a length side by side
    for begin in range(0, len(texts), _AT_ONCE):
        some = texts[begin : begin + _AT_ONCE]
        for text, column in zip(some, _run(automaton, some), strict=True):
            place = columns.setdefault(column.tobytes(), len(columns))
            if place == len(distinct):
                distinct.append(column)
            kinds[numbers[text]] = place
    table = np.stack(distinct, axis=1)
    return kinds[first], table[:states].copy(), table[states:].copy()


_AT_ONCE = 2048


def _run(automaton: _Automaton, texts: Sequence[bytes]) -> np.ndarray:
    """For each text and from each state: the state behind it, then what it completes; int16 [texts, 2 A]."""
    states = len(automaton.texts)
    state = np.repeat(np.arange(states)[:, None], len(texts), axis=1)
    event = np.zeros((states, len(texts)), np.int16)
    lengths = np.array([len(text) for text in texts])
    for place in range(lengths.max(initial=0)):
        there = np.flatnonzero(lengths > place)
        bytes_here = np.array([texts[int(number)][place] for number in there])
        before, old = state[:, there], event[:, there]
        new = automaton.events[before, bytes_here]
        state[:, there] = automaton.next[before, bytes_here]
        crowded = (new & ~UNCLEAR > 0) & (old & ~UNCLEAR > 0)  # two in one token: only the last is told
        flags = (old | new) & UNCLEAR | np.where(crowded, UNCLEAR, 0)
        event[:, there] = np.where(new & ~UNCLEAR, new, old) & ~UNCLEAR | flags
    return np.ascontiguousarray(np.concatenate([state, event]).T.astype(np.int16))


def _shortened(text: bytes, other: int) -> bytes:
    """The same to the automaton: of a run of bytes that no pattern has, one is enough."""
    return re.sub(re.escape(bytes([other])) + b"+", lambda match: match[0][:1], text)
