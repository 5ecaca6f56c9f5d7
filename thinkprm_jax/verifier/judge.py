"""LLM as a judge: an untuned model is asked for a verdict, and what it answers is read.

The baseline of the paper's section 4.1 and its appendix on prompts. The prompts and the reader of outputs are in
:mod:`thinkprm_jax.protocol.judge_prompts`; chains are run as ThinkPRM's are, by the same sampler. What a ThinkPRM
is made to say, a judge has to say by itself: an output without a readable verdict is unreadable and has no score,
unless ``force_decision`` asks for one.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.protocol.judge_prompts import (
    JudgeAnswer,
    JudgePrompt,
    judge_message,
    read_judgement,
)
from thinkprm_jax.protocol.prompts import BOX_OPEN, QUESTION, THINK_CLOSE, THINK_OPEN
from thinkprm_jax.sampler.request import Choose, Force, Mark, Phase, Rewind, Script, Think
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.base import verify_all
from thinkprm_jax.verifier.chain_verifier import ChainVerifier
from thinkprm_jax.verifier.findings import ChainVerdict, Findings, Reading
from thinkprm_jax.verifier.registry import refuse_other_kinds
from thinkprm_jax.verifier.script import (
    ChainTokens,
    check_room,
    encode_forced,
    first_of_two,
    longest_option,
    watchable,
    word_options,
)
from thinkprm_jax.verifier.settings import SamplingSettings, setting

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler

_WORDS = (("yes", "no"), ("Yes", "No"), ("YES", "NO"))
_WATCHED = 2  # of these pairs, at every token; a rarer spelling is asked for


class Unreadable(RequestError):
    """No output of a judge holds a readable verdict."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeSettings(SamplingSettings):
    """What a judge is asked, and how it answers."""

    kind: ClassVar[str] = "judge"

    judge_prompt: JudgePrompt = setting(
        "single",
        "a verdict on the whole, the index of the first error, or a verdict a step",
        recipe="judge_prompt",
    )
    force_decision: bool = setting(
        False, "an unreadable output is made to decide (a search always asks)", recipe=""
    )


def combine_outputs(chains: Sequence[ChainVerdict]) -> Findings:
    """The verdict of several outputs. The score is the mean over those that have one. The first error is what most
    of those that say it say, the first of equals, as ProcessBench votes; the score of a step is the share of them
    that call it correct.

    Raises:
      Unreadable: none of them holds a readable verdict.
    """
    scores = [chain.prefix_score for chain in chains if chain.prefix_score is not None]
    if not scores:
        raise Unreadable("no output of the judge holds a readable verdict")
    score = float(np.mean(scores))
    labels = [chain.step_labels for chain in chains if chain.step_labels]
    if not labels:
        return Findings(score, (score,), (), -1 if score >= 0.5 else None)
    places = [chain.reading.first_error for chain in chains if chain.step_labels]
    [(first, _)] = collections.Counter(places).most_common(1)
    assert first is not None
    steps = range(len(labels[0]))
    step_labels = tuple(int(first < 0 or step < first) for step in steps)
    return Findings(score, tuple(np.mean(labels, axis=0).tolist()), step_labels, first)


class LLMJudge(ChainVerifier):
    """A model that was trained for no such thing, as a verifier.

    Example:

        judge = LLMJudge("Qwen/Qwen2.5-7B-Instruct", judge_prompt="index", n=4)
        judge.predict_correctness_batch(["2 + 2?"], [["2 + 2 = 5."]])

    Args:
      model_name_or_path: a Hugging Face folder or id of a chat model, thinking or not.
      settings: in place of the name and the values.
      mesh: devices to run on.
      model, tokenizer: objects to use instead of loading a model. sampler: the same with a sampler around them.
      values: of :class:`JudgeSettings`. ``judge_prompt``: "single", "index" or "steps", see
        :mod:`thinkprm_jax.protocol.judge_prompts`. ``force_decision``: an unreadable output is made to decide
        (`</think>` where the model still thinks, then `Is the solution correct? \\boxed{`, and yes against no), as
        the original does in search, where every solution needs a score. Such a chain stays unreadable; its score
        is measured, not made up.
    Raises:
      UserError: the model cannot be loaded or has no chat template, or a setting cannot work.
    """

    Settings = JudgeSettings
    combine = staticmethod(combine_outputs)
    settings: JudgeSettings

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        settings: JudgeSettings | None = None,
        mesh: Mesh | None = None,
        model: Decoder | None = None,
        tokenizer: Tokenizer | None = None,
        sampler: Sampler | None = None,
        **values: Any,
    ) -> None:
        given = (model_name_or_path, settings, model, sampler)
        if settings is None and sum(each is not None for each in given) != 1:
            raise UserError("give one of model_name_or_path, model and tokenizer, or sampler")
        name = None if model_name_or_path is None else str(model_name_or_path)
        files = None if name is None else refuse_other_kinds(JudgeSettings.kind, name)
        if settings is None:
            settings = dataclasses.replace(self.given_settings(name, model, sampler, values), files=files)
        super().__init__(settings, model, tokenizer, sampler, mesh)
        self.judges_steps = self.settings.judge_prompt != "single"
        self._script = JudgeScript(self.tokenizer, self.settings, max_length=self.max_length, end_ids=self.end_ids)

    @classmethod
    def load(cls, settings: Any, *, mesh: Mesh | None = None, sampler: Sampler | None = None) -> Self:
        return cls(settings=settings, mesh=mesh, sampler=sampler)

    def prepare(self, problem: str, steps: Sequence[str]) -> tuple[list[int], Script]:
        """(ids of the prompt, script of a chain); RequestError where no answer fits behind it."""
        message = judge_message(self.settings.judge_prompt, problem, steps)
        ids = self.tokenizer.encode_chat([{"role": "user", "content": message}])
        room, positions, tokens = self._script.room, self.sampler.positions, self.settings.max_gen_tokens
        check_room(len(ids), room, "an answer", self.max_length, positions, tokens)
        return ids, functools.partial(self._script, len(steps))

    def predict_correctness_batch(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """As of every verifier, and ``labels``: the n verdicts on the whole, None where one is unreadable."""
        return [
            verdict.as_dict()
            if verdict.error is not None
            else {**verdict.as_dict(), "labels": [reading.label for reading in verdict.readings]}
            for verdict in verify_all(self.verify, questions, prefix_steps_batch)
        ]


class JudgeScript:
    """One output as a script for the sampler; calling it with the number of steps gives the generator."""

    def __init__(
        self, tokenizer: Tokenizer, settings: JudgeSettings, *, max_length: int, end_ids: Sequence[int]
    ) -> None:
        self._max_gen_tokens = max_length if settings.max_gen_tokens is None else settings.max_gen_tokens
        self._tokenizer, self._kind, self._force = tokenizer, settings.judge_prompt, settings.force_decision
        self._end_ids = tuple(end_ids)
        self._pairs = {pair[0]: word_options(tokenizer, *pair) for pair in _WORDS}
        self._watch = watchable(*(self._pairs[yes] for yes, _ in _WORDS[:_WATCHED]))
        opened = tokenizer.render_chat([{"role": "user", "content": "x"}])
        self._thinks = opened.rstrip().endswith(THINK_OPEN)

    @property
    def room(self) -> int:
        """Positions that a context keeps free for what may be forced."""
        forced = len(encode_forced(self._tokenizer, self._question(True))) if self._force else 0
        return forced + longest_option(*self._pairs.values()) - 1

    def __call__(self, num_steps: int) -> Generator[Phase, Any, ChainVerdict]:
        chain = ChainTokens(self._tokenizer, (yield Mark()))
        watch = self._watch if self._kind == "single" else ()
        thought = yield Think(self._max_gen_tokens, self._end_ids, watch=watch, reserve=self.room)
        chain.add(thought)
        text, _ = chain.text_and_ends()
        found = read_judgement(self._kind, text, num_steps)
        # For `single` P(yes) against P(no) where the word stands; the others give no probability of their label.
        score = None if found.label is None else float(found.label)
        if found.position is not None:
            score = yield from self._measure(chain, text, found)
        forced = found.label is None and self._force
        if forced:
            thinking = (self._thinks or THINK_OPEN in text) and THINK_CLOSE not in text
            yield Force(encode_forced(self._tokenizer, self._question(thinking)))
            score = first_of_two((yield Choose(self._pairs["yes"])))
        first = found.first_error
        labels: tuple[int, ...] = ()
        reading = Reading(found.label, first, (None,) * num_steps)
        if first is not None and self._kind != "single":
            labels = tuple(int(first < 0 or step < first) for step in range(num_steps))
            reading = Reading.of_first_error(first, num_steps)
        return ChainVerdict(
            output=text,
            prefix_score=score,
            step_labels=labels,
            step_scores=tuple(map(float, labels)),
            step_forced=(),
            finish_reason="stop" if thought.finish.startswith("stop") else thought.finish,
            reading=reading,
            forced=forced,
        )

    def _measure(self, chain: ChainTokens, text: str, found: JudgeAnswer) -> Generator[Phase, Any, float]:
        """P(yes) against P(no) where the word stands, in the spelling that it has there."""
        assert found.position is not None
        word = text[found.position : found.position + (3 if found.label else 2)]
        spelling = 2 if word.isupper() else 1 if word[0].isupper() else 0
        if spelling < _WATCHED:
            watched = chain.watched_at(found.position, chain.text_and_ends()[1])
            if watched is not None:
                return first_of_two(watched[2 * spelling : 2 * spelling + 2])
        kept, rest = chain.cut(found.position)
        yield Rewind(chain.start + kept)
        if rest:
            yield Force(encode_forced(self._tokenizer, rest))
        return first_of_two((yield Choose(self._pairs[_WORDS[spelling][0]])))

    @staticmethod
    def _question(thinking: bool) -> str:
        return (f"\n{THINK_CLOSE}" if thinking else "") + f"\n\n{QUESTION} {BOX_OPEN}"
