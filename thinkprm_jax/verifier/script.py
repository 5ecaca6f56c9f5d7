"""One verification as a script for the sampler: think, be made to decide, and give every step a verdict.

    <prompt> Let's verify step by step: ...          thinking, up to a stop or the budget
    \\n\\n Let me double check ...                     a further round: trigger phrase, thinking
    </think>\\nIs the solution correct?               what of this is missing is forced
             -> P( Yes) against P( No)               the score of the solution
    (back to the end of the thinking)
    \\n\\n Step k: The step is \\boxed{                 only for steps the chain never judged
             -> P(correct) against P(incorrect)

Nothing here touches a device: a script yields phases, and whatever runs it sends back their outcomes.
"""

from __future__ import annotations

import bisect
import codecs
import dataclasses
import functools
import hashlib
import itertools
import math
import re
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from thinkprm_jax.errors import RequestError, TooLong, UserError
from thinkprm_jax.protocol.prompts import BOX_OPEN, DECISION, LEAD_IN, NO, QUESTION, THINK_CLOSE, TRIGGERS, YES
from thinkprm_jax.protocol.reading import ChainReading, read_chain
from thinkprm_jax.sampler.request import MAX_WATCHED, Choose, Force, Mark, Phase, Rewind, Think, Thought
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.findings import ChainVerdict, Reading
from thinkprm_jax.verifier.settings import SamplingSettings, setting

CHAIN_TOKENS = 2048  # of an ordinary chain: the paper's have 1,037 on average and 3,669 at most
_SPARE = 16  # positions for the rest of a token that is broken where the thinking is cut
_DANGLING = re.compile(r"\s+[#*_>-]*[ \t]*\Z")  # blanks, and the marks of a heading that is not there


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScriptSettings(SamplingSettings):
    """What a chain is made to do."""

    rounds: int = setting(1, "thinking rounds a chain", recipe="n_thinking_rounds")
    decision_temperature: float = setting(1.0, "divides the log-probabilities of the final Yes and No")
    stop_at_unknown_step: bool = setting(
        False, "a chain that goes on to a step behind the last given one is ended there", recipe=""
    )
    triggers: tuple[str, ...] = setting(
        TRIGGERS, "phrases that begin the further rounds", option="", recipe="", stamped="changed"
    )
    before_trigger: str = setting(
        "\n\n", "what stands before such a phrase", option="", recipe="prm_before_trigger", stamped="changed"
    )
    close_thinking: bool = setting(
        True, "`</think>` stands before the question", option="", recipe="prm_close_thinking", stamped="changed"
    )
    decision: str = setting(
        DECISION,
        "the question at the end, as it stands there",
        option="",
        recipe="prm_predecision_string",
        stamped="changed",
    )
    labels: tuple[str, ...] = setting(
        (YES, NO), "its answers", option="", recipe="prm_label_categories", stamped="changed"
    )
    score_label: int = setting(
        0,
        "the score is the probability of this one of the answers, from 0",
        option="",
        recipe="prm_score_label_idx",
        stamped="changed",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1:
            raise UserError(f"rounds is {self.rounds}, it must be at least 1")
        if self.rounds > len(self.triggers) + 1:
            raise UserError(
                f"{self.rounds} thinking rounds need {self.rounds - 1} trigger phrases, there are "
                f"{len(self.triggers)}: a repeated phrase makes a model repeat itself"
            )
        if not self.triggers or not all(phrase.strip() for phrase in self.triggers):
            raise UserError("triggers must name at least one phrase, and no empty one")
        if not 2 <= len(self.labels) <= MAX_WATCHED or len(set(self.labels)) < len(self.labels):
            raise UserError(f"labels must be 2 to {MAX_WATCHED} different answers, not {list(self.labels)}")
        if not 0 <= self.score_label < len(self.labels):
            raise UserError(f"score_label is {self.score_label}, it must be from 0 to {len(self.labels) - 1}")
        if not self.decision_temperature > 0:
            raise UserError(f"decision_temperature is {self.decision_temperature}, it must be above 0")


class VerificationScript:
    """The settings and the token ids of the script; calling it with the number of steps gives the generator.

    After each round but the last the end of the chain is taken back and the next of the ``triggers`` is forced.
    When the context is full, no further round is begun. With ``stop_at_unknown_step`` `Step k:` ends a round, as
    `</think>` does, where k is the number of steps plus one: a chain about the beginning of a solution would
    otherwise go on to a step that nobody has written, and judge it. What would have headed that step is taken back
    with it.

    Args:
      max_length: longest context of the sampler that runs the script.
      end_ids: ids that end a text.

    A tokenizer may write the words of a verdict in several tokens. Their probability is then the product over
    these tokens, measured once the chain is written; words of one token each are watched while it is written.

    Raises:
      UserError: a tokenizer that writes two of the words alike.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        settings: ScriptSettings,
        *,
        max_length: int,
        end_ids: Sequence[int] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        # Chains are forced to say the same again and again.
        self._encode = functools.lru_cache(maxsize=512)(functools.partial(encode_forced, tokenizer))
        self._triggers = tuple(settings.triggers[: settings.rounds - 1])
        self._max_gen_tokens = max_length if settings.max_gen_tokens is None else settings.max_gen_tokens
        self._max_length = max_length
        # Blanks at the end of the question belong to the words behind it, as a tokenizer would have it.
        question = settings.decision.rstrip(" ")
        blanks = settings.decision[len(question) :]
        self._closing = (THINK_CLOSE if settings.close_thinking else "") + question
        self._labels = tuple(blanks + label for label in settings.labels)
        self._answers = word_options(tokenizer, *self._labels)
        self._verdicts = word_options(tokenizer, "correct", "incorrect")
        self._watch = watchable(self._verdicts)
        self._spare = _SPARE + longest_option(self._answers, self._verdicts) - 1
        ends = (tokenizer.eos_id,) if end_ids is None else tuple(end_ids)
        # Some models of the family (QwQ) write </think> as ordinary text.
        self._close = tokenizer.control_ids.get(THINK_CLOSE)
        self._stop_ids = ends if self._close is None else (self._close, *ends)
        self._stop_texts = (QUESTION, THINK_CLOSE) if self._close is None else (QUESTION,)

    @property
    def budget(self) -> int | None:
        """Tokens that all rounds may think; None: as many as fit."""
        limit = self._settings.max_gen_tokens
        return None if limit is None else limit * self._settings.rounds

    def room(self, num_steps: int) -> int:
        """Positions a context needs behind the prompt for all that may be forced, the trigger phrases aside."""
        closing = self._encode("\n" + self._closing)
        verdict = self._encode(_ask(LEAD_IN, num_steps))
        return max(len(closing), len(verdict)) + self._spare

    def __call__(self, num_steps: int) -> Generator[Phase, Any, ChainVerdict]:
        """The script for a solution of ``num_steps`` >= 1 steps."""
        chain = ChainTokens(self._tokenizer, (yield Mark()))
        thought = yield from self._think(chain, num_steps)
        text, _ = chain.text_and_ends()
        closed = thought.stop is not None and thought.stop in (self._close, THINK_CLOSE)
        # In training texts a newline stands before </think>; a chain that closed itself is left as it is.
        alone = closed or text.endswith("\n") or not text or not self._settings.close_thinking
        closing = self._closing if alone else "\n" + self._closing
        yield Force(self._encode(closing))
        answers = yield Choose(self._answers)
        score = share_of(answers, self._settings.score_label, self._settings.decision_temperature)
        read = read_chain(text, num_steps)
        labels, scores, forced = yield from self._judge(chain, read)
        return ChainVerdict(
            output=text + closing + self._labels[int(np.argmax(answers))],
            prefix_score=score,
            step_labels=tuple(labels),
            step_scores=tuple(scores),
            step_forced=tuple(forced),
            finish_reason="stop" if thought.finish.startswith("stop") else thought.finish,
            reading=reading_of(read),
        )

    def _think(self, chain: ChainTokens, num_steps: int) -> Generator[Phase, Any, Thought]:
        """All rounds; returns the last one's outcome."""
        room = self.room(num_steps)
        unknown = f"Step {num_steps + 1}:"
        stop_texts = (*self._stop_texts, unknown) if self._settings.stop_at_unknown_step else self._stop_texts
        for trigger in (*self._triggers, None):
            opening = None if trigger is None else self._settings.before_trigger + trigger
            thought = yield Think(
                max_tokens=self._max_gen_tokens,
                stop_ids=self._stop_ids,
                stop_texts=stop_texts,
                watch=self._watch,
                reserve=room if opening is None else room + len(self._encode(opening)) + _SPARE,
            )
            chain.add(thought)
            text, _ = chain.text_and_ends()
            # Blanks at the end go too. The original's class puts one newline before the phrase and its client
            # none; a blank line, as between the paragraphs of a chain, is ours: docs/differences.md.
            end = len(text.rstrip()) if thought.stop != unknown else len(_DANGLING.sub("", text))
            if opening is None or thought.finish == "context":
                if thought.stop == unknown and end:
                    yield from self._replace_tail(chain, end, "\n")
                break
            yield from self._replace_tail(chain, end, opening)
        return thought

    def _replace_tail(self, chain: ChainTokens, end: int, text: str) -> Generator[Phase, Any, None]:
        """Cuts the chain to its first ``end`` characters and forces ``text`` behind them."""
        kept, rest = chain.cut(end)
        ids = self._encode(rest + text)
        yield Rewind(chain.start + kept)
        yield Force(ids)
        chain.replace_tail(kept, ids)

    def _judge(
        self, chain: ChainTokens, verdicts: ChainReading
    ) -> Generator[Phase, Any, tuple[list[int], list[float], list[bool]]]:
        """(labels, scores, forced), each [steps]: as read from the chain, and asked for where it is silent."""
        _, ends = chain.text_and_ends()
        num_steps = len(verdicts.labels)
        judged_steps = num_steps if verdicts.first_error is None else verdicts.first_error + 1
        silent = [step for step in range(judged_steps) if not verdicts.judged[step]]
        answers = yield from self._force_verdicts(chain, silent)
        labels, scores, forced = [0] * num_steps, [0.0] * num_steps, [False] * num_steps
        unmeasured: list[tuple[int, int]] = []  # (offset in the chain, step)
        negated: list[int] = []  # steps that are `not correct`
        for step in range(judged_steps):
            forced[step] = step in answers
            if forced[step]:
                scores[step] = answers[step]
                labels[step] = int(answers[step] >= 0.5)
            else:
                labels[step] = int(verdicts.labels[step] or 0)
                position = verdicts.positions[step]
                assert position is not None
                measured = chain.watched_at(position, ends)
                scores[step] = math.nan if measured is None else first_of_two(measured)
                if measured is None:
                    unmeasured.append((position, step))
                if verdicts.inverted[step]:
                    negated.append(step)
            if not labels[step]:
                break
        # From the last to the first, since a context can only be cut back.
        for position, step in sorted(unmeasured, reverse=True):
            kept, rest = chain.cut(position)
            yield Rewind(chain.start + kept)
            if rest:
                yield Force(self._encode(rest))
            scores[step] = first_of_two((yield Choose(self._verdicts)))
        for step in negated:
            scores[step] = 1 - scores[step]
        return labels, scores, forced

    def _force_verdicts(
        self, chain: ChainTokens, silent: Sequence[int]
    ) -> Generator[Phase, Any, dict[int, float]]:
        """Step -> P(correct), through the first one found incorrect. Each verdict stands below those before it."""
        text, _ = chain.text_and_ends()
        kept, rest = chain.cut(len(text.rstrip()))
        answers: dict[int, float] = {}
        for step in silent:
            follow = (*self._verdicts[0], *self._encode(_ask("}", step + 1)))
            if not answers or (yield Mark()) + len(follow) + self._spare - _SPARE > self._max_length:
                yield Rewind(chain.start + kept)
                follow = self._encode(_ask(rest if text.strip() else LEAD_IN, step + 1))
            yield Force(follow)
            answers[step] = first_of_two((yield Choose(self._verdicts)))
            if answers[step] < 0.5:
                break
        return answers


def reading_of(found: ChainReading) -> Reading:
    """What a chain says by itself; unreadable where some step before the first incorrect one has no verdict."""
    if not found.complete:
        return Reading(None, None, found.labels)
    first_error = -1 if found.first_error is None else found.first_error
    return Reading(int(first_error < 0), first_error, found.labels)


class ChainTokens:
    """The tokens behind the prompt, with the log-probabilities (correct, incorrect) seen at each of them."""

    def __init__(self, tokenizer: Tokenizer, start: int) -> None:
        self.start = start
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._watched: list[np.ndarray] = []
        self._read: tuple[str, list[int]] | None = None  # its text and ends, once they were asked for

    def add(self, thought: Thought) -> None:
        self._ids += thought.ids
        self._watched += list(thought.watched)
        self._read = None

    def replace_tail(self, kept: int, ids: Sequence[int]) -> None:
        """Keeps the first tokens and puts forced ones behind them."""
        self._ids[kept:] = ids
        self._watched[kept:] = [np.full(2, np.nan)] * len(ids)
        self._read = None

    def text_and_ends(self) -> tuple[str, list[int]]:
        """The text, and for every token the number of characters that are complete once it is there."""
        if self._read is None:
            self._read = self._decode()
        return self._read

    def _decode(self) -> tuple[str, list[int]]:
        parts = self._tokenizer.pieces(self._ids)
        whole = b"".join(parts)
        if whole.isascii():  # a character a byte
            return whole.decode("ascii"), list(itertools.accumulate(map(len, parts)))
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        pieces, ends, length = [], [], 0
        for place, part in enumerate(parts, start=1):
            pieces.append(decoder.decode(part, final=place == len(parts)))
            length += len(pieces[-1])
            ends.append(length)
        return "".join(pieces), ends

    def cut(self, length: int) -> tuple[int, str]:
        """(tokens that lie within the first ``length`` characters, the rest of those characters)."""
        text, ends = self.text_and_ends()
        kept = bisect.bisect_right(ends, length)
        return kept, text[ends[kept - 1] if kept else 0 : length]

    def watched_at(self, position: int, ends: Sequence[int]) -> np.ndarray | None:
        """Log-probabilities where the character at ``position`` begins a token; None elsewhere, or if forced."""
        token = bisect.bisect_right(ends, position)
        begins = (ends[token - 1] if token else 0) == position
        watched = self._watched[token]
        return watched if begins and watched.size and np.isfinite(watched).all() else None


def word_options(tokenizer: Tokenizer, *words: str) -> tuple[tuple[int, ...], ...]:
    """The ids of each word inside a text, for :class:`.Choose`.

    Raises:
      UserError: two of them are the same ids, so that nothing could be chosen.
    """
    options = tuple(tuple(tokenizer.encode_inside(word)) for word in words)
    for number, option in enumerate(options):
        if not option or option in options[:number]:
            raise UserError(f"this tokenizer cannot tell {' and '.join(map(repr, words))} apart")
    return options


def watchable(*pairs: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The ids of :attr:`.Think.watch` for these words; () where one of them is several tokens, since their
    probability cannot be read where they begin."""
    options = [option for pair in pairs for option in pair]
    return tuple(id for (id,) in options) if longest_option(options) == 1 else ()


def longest_option(*pairs: Sequence[tuple[int, ...]]) -> int:
    """In tokens."""
    return max(len(option) for pair in pairs for option in pair)


def chain_seed(seed: int, chain: int, prompt: Sequence[int]) -> int:
    """In [0, 2**31), from what defines the chain; with the prompt, so that two solutions never share noise."""
    text = f"{seed} {chain} {' '.join(map(str, prompt))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def check_room(prompt: int, forced: int, what: str, max_length: int, positions: int, tokens: int | None) -> None:
    """Refuses a prompt behind which there is no room for a token of a chain.

    Args:
      prompt: its tokens. forced: those that may be forced. what: is to be written.
      max_length: longest context. positions: the model's.
      tokens: that may be written; None: as many as fit.
    Raises:
      TooLong: with the max_length at which an ordinary chain fits, or as much of one as the model can.
    """
    least = prompt + forced + 1
    if least <= max_length:
        return
    message = f"the prompt has {prompt} tokens: with max_length {max_length} there is no room for {what}"
    wanted = least + (CHAIN_TOKENS if tokens is None else tokens)
    raise TooLong(message, max(min(wanted, positions), least), positions)


def encode_forced(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """ids of text inside a context; `</think>` is a control token where the tokenizer has one."""
    close = tokenizer.control_ids.get(THINK_CLOSE)
    if close is None:
        return tuple(tokenizer.encode_plain(text, inner=True))
    runs = [tokenizer.encode_plain(run, inner=True) if run else [] for run in text.split(THINK_CLOSE)]
    ids = list(runs[0])
    for run in runs[1:]:
        ids += [close, *run]
    return tuple(ids)


def _ask(before: str, step: int) -> str:
    """Text up to the place where the verdict of a step (from 1) stands."""
    return f"{before}\n\nStep {step}: The step is {BOX_OPEN}"


def share_of(logprobs: np.ndarray, place: int, temperature: float) -> float:
    """Softmax over log-probabilities [N], of the entry at ``place``; errors as of :func:`first_of_two`."""
    chosen, others = logprobs[place], np.delete(logprobs, place)
    if len(others) == 1:
        return first_of_two((chosen, others[0]), temperature)
    # All others together are one alternative, of the log of their sum.
    scaled = others.astype(np.float64) / temperature
    together = float(scaled.max() + np.log(np.exp(scaled - scaled.max()).sum()))
    return first_of_two((float(chosen) / temperature, together))


def first_of_two(logprobs: Sequence[float] | np.ndarray, temperature: float = 1.0) -> float:
    """Softmax over two log-probabilities, first entry; RequestError where the model gave NaN or infinity."""
    if not np.isfinite(np.asarray(logprobs[:2])).all():
        raise RequestError("the model's log-probabilities are not finite: its numbers overflow in this dtype")
    difference = (float(logprobs[0]) - float(logprobs[1])) / temperature
    if difference >= 0:
        return 1.0 / (1.0 + math.exp(-difference))
    return math.exp(difference) / (1.0 + math.exp(difference))
