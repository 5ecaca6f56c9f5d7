"""The script of a verification as tables: what is forced, and where, without a host beside the device.

:class:`thinkprm_jax.verifier.script.VerificationScript` decides at the end of every round what is forced next, and
encodes it. There are few such texts: the trigger phrases, the question with or without a newline before it, and
`Step k: The step is \\boxed{` for each step. All of them are encoded here once, in every form that they can take
behind what was cut.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from thinkprm_jax.errors import UserError
from thinkprm_jax.functional.scanner import ChainScanner, make_scanner
from thinkprm_jax.protocol.prompts import BOX_OPEN, LEAD_IN, QUESTION, THINK_CLOSE
from thinkprm_jax.verifier.script import encode_forced, word_options

if TYPE_CHECKING:
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer
    from thinkprm_jax.verifier.thinkprm import ThinkPRMSettings

# Groups of what stands at the end of a chain: a whole token, nothing but blanks, else a token that ends in blanks.
WHOLE, BLANK = 0, 1


@dataclasses.dataclass(frozen=True, eq=False)
class DeviceScript:
    """All that the device looks up, static in jit; N texts of up to F tokens, G groups of ends, S steps.

    Two of the same content are equal, so that nothing is compiled twice.

    Attributes:
      scanner: reads the chain.
      forced: int32 [N, F], the texts, and forced_lengths: int32 [N].
      opening: int32 [rounds - 1, G], which of them begins the next round.
      closing: int32 [2], the question, alone or behind a newline.
      asking: int32 [S, G], the first question for a step; asking_next: int32 [S], behind another such question.
      end_group: int32 [V], of a token that ends in blanks its group, else 0. blank: bool [V], it is only blanks.
      ends_line: bool [V]. lengths: int32 [V], bytes.
      stop_ids: they end a chain; close_id: the one of them that closes the thinking, or -1.
      labels: ids of the answers; score_label: whose probability is the score. verdicts: correct, incorrect.
      rounds, max_steps, question_bytes: numbers. decision_temperature, temperature, top_p: of the settings.
    """

    scanner: ChainScanner
    forced: np.ndarray
    forced_lengths: np.ndarray
    opening: np.ndarray
    closing: np.ndarray
    asking: np.ndarray
    asking_next: np.ndarray
    end_group: np.ndarray
    blank: np.ndarray
    ends_line: np.ndarray
    lengths: np.ndarray
    stop_ids: tuple[int, ...]
    close_id: int
    labels: tuple[int, ...]
    score_label: int
    verdicts: tuple[int, int]
    rounds: int
    max_steps: int
    question_bytes: int
    decision_temperature: float
    temperature: float
    top_p: float

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            parts = vars(value).values() if isinstance(value, ChainScanner) else (value,)
            for part in parts:
                digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
        object.__setattr__(self, "_digest", digest.hexdigest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeviceScript) and vars(self)["_digest"] == vars(other)["_digest"]

    def __hash__(self) -> int:
        return hash(vars(self)["_digest"])

    def __repr__(self) -> str:
        return f"DeviceScript(rounds={self.rounds}, max_steps={self.max_steps})"

    def chain_room(self, max_tokens: int) -> int:
        """Positions behind a prompt for all that stands in one context: rounds, phrases and the question."""
        phrases = self.forced_lengths[self.opening].max(axis=1, initial=0).sum() if self.opening.size else 0
        return self.rounds * max_tokens + int(phrases) + int(self.forced_lengths[self.closing].max())

    def asking_room(self) -> int:
        """Tokens of all questions for steps."""
        first = int(self.forced_lengths[self.asking].max())
        return first + int(self.forced_lengths[self.asking_next][1:].sum())


def make_script(
    tokenizer: Tokenizer, settings: ThinkPRMSettings, end_ids: Sequence[int], vocabulary: int, max_steps: int
) -> DeviceScript:
    """The tables for a verifier's settings.

    Args:
      end_ids: ids that end a text. vocabulary: V of the model.
    Raises:
      UserError: a setting that the device cannot follow, a word of a verdict that is several tokens.
    """
    if max_steps < 1:
        raise UserError(f"max_steps is {max_steps}, it must be at least 1")
    if settings.stop_at_unknown_step:
        raise UserError("stop_at_unknown_step is for the host: a device does not cut chains at a step's label")
    question = settings.decision.rstrip(" ")
    blanks = settings.decision[len(question) :]
    labels = _single(tokenizer, *(blanks + label for label in settings.labels))
    good, bad = _single(tokenizer, "correct", "incorrect")
    close = tokenizer.control_ids.get(THINK_CLOSE)
    ends = tuple(end_ids)

    tokens = [tokenizer.token_bytes(id) for id in range(vocabulary)]
    groups = _EndGroups(tokens)
    texts = _Texts(tokenizer)
    closing = (THINK_CLOSE if settings.close_thinking else "") + question
    phrases = settings.triggers[: settings.rounds - 1]
    asks = [f"\n\nStep {step}: The step is {BOX_OPEN}" for step in range(1, max_steps + 1)]
    opening = [
        [texts.add(rest + settings.before_trigger + phrase) for rest in groups.rests("")] for phrase in phrases
    ]
    asking = [[texts.add(rest + ask) for rest in groups.rests(LEAD_IN)] for ask in asks]
    return DeviceScript(
        scanner=make_scanner(tokens, QUESTION, () if close is not None else (THINK_CLOSE,)),
        opening=np.array(opening, np.int32).reshape(len(phrases), groups.count),
        closing=np.array([texts.add(closing), texts.add("\n" + closing)], np.int32),
        asking=np.array(asking, np.int32),
        asking_next=np.array([texts.add("}" + ask, before=(good,)) for ask in asks], np.int32),
        forced=texts.table(),
        forced_lengths=texts.lengths(),
        end_group=groups.of_token,
        blank=groups.blank,
        ends_line=np.array([token.endswith(b"\n") for token in tokens]) | (not settings.close_thinking),
        lengths=np.array([len(token) for token in tokens], np.int32),
        stop_ids=ends if close is None else (close, *ends),
        close_id=-1 if close is None else close,
        labels=labels,
        score_label=settings.score_label,
        verdicts=(good, bad),
        rounds=settings.rounds,
        max_steps=max_steps,
        question_bytes=len(QUESTION.encode()),
        decision_temperature=settings.decision_temperature,
        temperature=settings.temperature or 0.0,
        top_p=settings.top_p,
    )


def _single(tokenizer: Tokenizer, *words: str) -> tuple[int, ...]:
    options = word_options(tokenizer, *words)
    for word, option in zip(words, options, strict=True):
        if len(option) != 1:
            raise UserError(
                f"{word!r} is {len(option)} tokens in this tokenizer: a score inside jit is read at one token"
            )
    return tuple(id for (id,) in options)


class _Texts:
    """Texts that may be forced, each once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._numbers: dict[tuple[int, ...], int] = {}

    def add(self, text: str, before: tuple[int, ...] = ()) -> int:
        ids = before + encode_forced(self._tokenizer, text)
        return self._numbers.setdefault(ids, len(self._numbers))

    def lengths(self) -> np.ndarray:
        return np.array([len(ids) for ids in self._numbers], np.int32)

    def table(self) -> np.ndarray:
        found = np.zeros((len(self._numbers), max(map(len, self._numbers))), np.int32)
        for number, ids in enumerate(self._numbers):
            found[number, : len(ids)] = ids
        return found


class _EndGroups:
    """Tokens by what is left of them where blanks at the end of a chain are cut."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        kept: dict[str, int] = {}
        self.of_token, self.blank = np.zeros(len(tokens), np.int32), np.zeros(len(tokens), bool)
        for id, token in enumerate(tokens):
            try:
                text = token.decode("utf-8")
            except UnicodeDecodeError:  # a part of a character, which is no blank
                continue
            left = text.rstrip()
            self.blank[id] = not left
            if left and left != text:
                self.of_token[id] = kept.setdefault(left, len(kept) + BLANK + 1)
        self._kept = list(kept)
        self.count = len(kept) + BLANK + 1

    def rests(self, blank: str) -> list[str]:
        """What is put back in front of a forced text, by group; ``blank``: in a chain that says nothing."""
        return ["", blank, *self._kept]
