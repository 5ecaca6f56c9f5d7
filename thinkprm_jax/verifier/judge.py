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
import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.protocol.judge_prompts import JUDGE_PROMPTS, Judgement, judge_message, read_judgement
from thinkprm_jax.protocol.prompts import BOX_OPEN, QUESTION, THINK_CLOSE, THINK_OPEN
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.runtime import default_dtype
from thinkprm_jax.sampler.request import Choose, Force, Mark, Phase, Rewind, Think
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.chains import Sampling, Script, predict_batch, score_outputs, write_chains
from thinkprm_jax.verifier.script import Chain, encode_forced, first_of_two
from thinkprm_jax.verifier.thinkprm import make_sampler

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler

logger = logging.getLogger(__name__)

_WORDS = (("yes", "no"), ("Yes", "No"), ("YES", "NO"))
_WATCHED = 2  # of these pairs, at every token; a rarer spelling is asked for


class Unreadable(RequestError):
    """No output of a judge holds a readable verdict."""


class Unlocated(RequestError):
    """The judge says that there is an error and not where."""


@dataclasses.dataclass(frozen=True)
class JudgeChain:
    """One output of a judge.

    Attributes:
      output: the text as it came.
      label: 1 the solution is correct, 0 it is not, None unreadable.
      prefix_score: for the prompt `single` P(yes) against P(no) where the word stands; for the others the label,
        as they give no probability of it. None where unreadable; ``forced``: asked for all the same.
      first_error: index from 0 of the first incorrect step, -1 for none, None where the output does not say.
      step_labels, step_scores: 1 up to the first error, 0 from there; empty where the output does not say.
      finish_reason: "stop", "length" (max_gen_tokens) or "context" (max_length).
      output_tokens: tokens sampled.
    """

    output: str
    label: int | None
    prefix_score: float | None
    first_error: int | None
    step_labels: tuple[int, ...]
    forced: bool
    finish_reason: str
    output_tokens: int = 0

    @property
    def step_scores(self) -> tuple[float, ...]:
        return tuple(map(float, self.step_labels))


@dataclasses.dataclass(frozen=True)
class JudgeVerdict:
    """The verdict on one solution: the prompt, and its n outputs; or ``failure``, why it could not be judged.

    The properties average over the chains that have a score; they raise ``error`` where there is one.
    """

    prompt: str = ""
    chains: tuple[JudgeChain, ...] = ()
    failure: RequestError | None = None

    @property
    def error(self) -> RequestError | None:
        """Why there is no score: the failure, or :class:`Unreadable`, and then the chains are there."""
        if self.failure is None and all(chain.prefix_score is None for chain in self.chains):
            return Unreadable("no output of the judge holds a readable verdict")
        return self.failure

    @property
    def readable(self) -> int:
        """Chains whose output holds a readable verdict."""
        return sum(chain.label is not None for chain in self.chains)

    @property
    def output_tokens(self) -> int:
        """Tokens sampled for it, over all chains, unreadable ones too."""
        return sum(chain.output_tokens for chain in self.chains)

    @property
    def prefix_score(self) -> float:
        """Probability that all given steps are correct: the mean over the chains that have a score."""
        if self.error is not None:
            raise self.error
        return float(np.mean([chain.prefix_score for chain in self.chains if chain.prefix_score is not None]))

    @property
    def first_error(self) -> int:
        """Index from 0 of the first incorrect step, or -1: what most chains say, the first of equals, as
        ProcessBench votes. `single` says -1 where the score is at least one half, and else :class:`Unlocated`."""
        score = self.prefix_score
        found = [chain.first_error for chain in self.chains if chain.step_labels]
        if found:
            return collections.Counter(found).most_common(1)[0][0]
        if score < 0.5:
            raise Unlocated("the judge says that there is an error and not where")
        return -1

    @property
    def step_labels(self) -> list[int]:
        """1 before the first error, 0 from there on; empty where no chain says anything of steps."""
        length = max((len(chain.step_labels) for chain in self.chains), default=0)
        first = self.first_error if length else -1
        return [int(first < 0 or step < first) for step in range(length)]

    @property
    def step_scores(self) -> list[float]:
        """Of each step the share of the chains that call it correct; where no chain says anything of steps, the
        score of the whole alone, of which every aggregation over steps is that score."""
        score = self.prefix_score
        labels = [chain.step_labels for chain in self.chains if chain.step_labels]
        return np.mean(labels, axis=0).tolist() if labels else [score]

    def as_dict(self) -> dict[str, Any]:
        """The result of :meth:`LLMJudge.predict_correctness_batch` for one solution."""
        if self.error is not None:
            return {"error": str(self.error)}
        return {
            "step_labels": [list(chain.step_labels) for chain in self.chains],
            "inputs": self.prompt,
            "outputs": [chain.output for chain in self.chains],
            "prefix_score": self.prefix_score,
            "prefix_scores": [chain.prefix_score for chain in self.chains],
            "step_scores": [list(chain.step_scores) for chain in self.chains],
            "labels": [chain.label for chain in self.chains],
            "finish_reasons": [chain.finish_reason for chain in self.chains],
            "output_tokens": [chain.output_tokens for chain in self.chains],
        }


class LLMJudge:
    """A model that was trained for no such thing, as a verifier.

    Args:
      model_name_or_path: a Hugging Face folder or id of a chat model, thinking or not.
      judge_prompt: "single", "index" or "steps": see :mod:`thinkprm_jax.protocol.judge_prompts`.
      force_decision: an unreadable output is made to decide (`</think>` where the model still thinks, then
        `Is the solution correct? \\boxed{`, and yes against no), as the original does in search, where every
        solution needs a score. Such a chain stays unreadable (``label`` None); its score is measured, not made up.
      max_length, temperature, n, seed, max_gen_tokens, slots, dtype, mesh, model, tokenizer, sampler: as of
        :class:`.ThinkPRM`. top_p: of sampling.
    Raises:
      UserError: the model cannot be loaded or has no chat template, or a setting cannot work.
    """

    kind: ClassVar[str] = "judge"
    split = staticmethod(split_solution)  # the steps of a whole solution

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        judge_prompt: str = "single",
        max_length: int = 4096,
        temperature: float = 0.0,
        top_p: float = 1.0,
        n: int = 1,
        seed: int = 0,
        max_gen_tokens: int | None = None,
        force_decision: bool = False,
        slots: int = 16,
        dtype: str | None = None,
        mesh: Mesh | None = None,
        model: Decoder | None = None,
        tokenizer: Tokenizer | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        if (model_name_or_path is not None) + (model is not None) + (sampler is not None) != 1:
            raise UserError("give one of model_name_or_path, model and tokenizer, or sampler")
        self._sampling = Sampling(n, temperature, seed, top_p)
        if sampler is None:
            dtype = (dtype or default_dtype()) if model is None else model.dtype.name
            sampler = make_sampler(model_name_or_path, model, tokenizer, slots, max_length, dtype, mesh)
        self.sampler, self.tokenizer, self.max_length, self.n = sampler, sampler.tokenizer, sampler.max_length, n
        self.judge_prompt = judge_prompt
        self._script = JudgeScript(
            self.tokenizer,
            judge_prompt=judge_prompt,
            max_length=self.max_length,
            end_ids=sampler.end_ids,
            max_gen_tokens=max_gen_tokens,
            force_decision=force_decision,
        )
        self.settings: dict[str, Any] = {
            "kind": self.kind,
            "model": None if model_name_or_path is None else str(model_name_or_path),
            **dataclasses.asdict(self._sampling),
            "max_length": self.max_length,
            "max_gen_tokens": max_gen_tokens,
            "judge_prompt": judge_prompt,
            "force_decision": force_decision,
            "dtype": dtype,
        }

    @property
    def judges_steps(self) -> bool:
        """Whether a verdict says which step is wrong."""
        return self.judge_prompt != "single"

    @property
    def sampled_tokens(self) -> int:
        """Tokens sampled so far by its sampler."""
        return self.sampler.stats.sampled_tokens

    def verify(self, items: Iterable[tuple[str, Sequence[str]] | None]) -> Iterator[tuple[int, JudgeVerdict]]:
        """(index of the item, verdict) as they finish, in any order.

        Args:
          items: (problem, steps); taken from the iterable as slots become free. None: there is none at the moment.
        """

        def prepare(problem: str, steps: list[str]) -> tuple[list[int], Script]:
            message = judge_message(self.judge_prompt, problem, steps)
            ids = self.tokenizer.encode_chat([{"role": "user", "content": message}])
            if len(ids) + self._script.room >= self.max_length:
                raise RequestError(
                    f"the prompt has {len(ids)} tokens: with max_length {self.max_length} there is no room for an "
                    "answer"
                )
            return ids, functools.partial(self._script, len(steps))

        for index, written in write_chains(self.sampler, items, prepare, self._sampling):
            yield index, JudgeVerdict(written.prompt, written.chains, written.error)

    def predict_correctness_batch(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """One result a solution, in order, with the keys of ThinkPRM's; ``labels`` are the n verdicts on the
        whole, None where an output is unreadable. A solution without any has the one key ``error`` instead."""
        return predict_batch(self.verify, questions, prefix_steps_batch, logger.warning)

    def score(
        self, questions: Sequence[str], outputs: Sequence[Sequence[str]], batch_size: int = 8
    ) -> list[list[list[float]]]:
        """The reward-model interface of search-and-learn: [question][output] -> scores; see
        :attr:`JudgeVerdict.step_scores`. RequestError where an output cannot be judged, or none of its verdicts
        can be read."""
        return [[steps for steps, _ in row] for row in score_outputs(self, questions, outputs)]


class JudgeScript:
    """One output as a script for the sampler; calling it with the number of steps gives the generator.

    Raises:
      UserError: a setting that cannot work.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        judge_prompt: str,
        max_length: int,
        end_ids: Sequence[int],
        max_gen_tokens: int | None,
        force_decision: bool,
    ) -> None:
        if judge_prompt not in JUDGE_PROMPTS:
            raise UserError(f"judge_prompt is {judge_prompt!r}, it must be one of {', '.join(JUDGE_PROMPTS)}")
        self._max_gen_tokens = max_length if max_gen_tokens is None else max_gen_tokens
        if self._max_gen_tokens < 1:
            raise UserError(f"max_gen_tokens is {max_gen_tokens}, it must be at least 1")
        self._tokenizer, self._kind, self._force = tokenizer, judge_prompt, force_decision
        self._end_ids = tuple(end_ids)
        # A word may be several tokens: its first one tells yes from no.
        self._pairs = {
            yes: (tokenizer.encode_inside(yes)[0], tokenizer.encode_inside(no)[0]) for yes, no in _WORDS
        }
        self._watch = tuple(id for yes, _ in _WORDS[:_WATCHED] for id in self._pairs[yes])
        opened = tokenizer.render_chat([{"role": "user", "content": "x"}])
        self._thinks = opened.rstrip().endswith(THINK_OPEN)

    @property
    def room(self) -> int:
        """Positions that a context keeps free for what may be forced."""
        return len(encode_forced(self._tokenizer, self._question(True))) if self._force else 0

    def __call__(self, num_steps: int) -> Generator[Phase, Any, JudgeChain]:
        chain = Chain(self._tokenizer, (yield Mark()))
        watch = self._watch if self._kind == "single" else ()
        thought = yield Think(self._max_gen_tokens, self._end_ids, watch=watch, reserve=self.room)
        chain.add(thought)
        text, _ = chain.text_and_ends()
        found = read_judgement(self._kind, text, num_steps)
        score = None if found.label is None else float(found.label)
        if found.position is not None:
            score = yield from self._measure(chain, text, found)
        forced = found.label is None and self._force
        if forced:
            thinking = (self._thinks or THINK_OPEN in text) and THINK_CLOSE not in text
            yield Force(encode_forced(self._tokenizer, self._question(thinking)))
            score = first_of_two((yield Choose(self._pairs["yes"])))
        first = found.first_error
        located = first is not None and self._kind != "single"
        return JudgeChain(
            output=text,
            label=found.label,
            prefix_score=score,
            first_error=first,
            step_labels=tuple(int(first < 0 or step < first) for step in range(num_steps)) if located else (),
            forced=forced,
            finish_reason="stop" if thought.finish.startswith("stop") else thought.finish,
        )

    def _measure(self, chain: Chain, text: str, found: Judgement) -> Generator[Phase, Any, float]:
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
