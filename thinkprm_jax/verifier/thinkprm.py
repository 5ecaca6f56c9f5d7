"""ThinkPRM: a process reward model that thinks before it scores.

Solutions go in, verdicts come out: for each solution n chains of some rounds are run by the sampler, all of them
side by side, and each gives a score for the whole and for every step.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from thinkprm_jax.protocol.prompts import VERIFICATION_PROMPT, check_prompt, encode_prompt
from thinkprm_jax.protocol.steps import LocatedStep
from thinkprm_jax.sampler.handle import Handle
from thinkprm_jax.sampler.request import Script
from thinkprm_jax.verifier.base import Item, Verdict, verify_all
from thinkprm_jax.verifier.chain_verifier import ChainVerifier
from thinkprm_jax.verifier.findings import ChainVerdict, Findings
from thinkprm_jax.verifier.registry import refuse_other_kinds
from thinkprm_jax.verifier.script import ScriptSettings, VerificationScript, check_room
from thinkprm_jax.verifier.settings import setting

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

__all__ = ["ThinkPRM", "ThinkPRMSettings", "combine_chains"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThinkPRMSettings(ScriptSettings):
    """All that a ThinkPRM's verdicts depend on, apart from the solution."""

    kind: ClassVar[str] = "thinkprm"

    prompt: str = setting(
        VERIFICATION_PROMPT,
        "format of the user turn, with the fields {problem} and {solution}",
        option="",
        recipe="",
        stamped="changed",
    )

    number_steps: bool = setting(
        True, "`Step i:` before each step", option="", recipe="prm_number_steps", stamped="changed"
    )
    opening: str = setting(
        "", "text that every chain begins with", option="", recipe="prm_opening", stamped="changed"
    )
    split_at: Literal["any", "labels"] = setting(
        "any",
        "how a whole solution is cut: any sign of a step, or `Step i:` alone",
        option="",
        recipe="prm_split_at",
        stamped="changed",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_prompt(self.prompt)


_MOST_LIMITS = 256  # scripts with limits of their own that are kept
_LABEL = re.compile(r"(?:## )?Step \d+:")


def labelled_parts(solution: str) -> list[LocatedStep]:
    """What stands between `Step i:` labels, wherever they stand, as the original's client cuts a solution: without
    labels all of it is one step, and what stands before the first one is a step of its own."""
    cuts = [0, *(place for label in _LABEL.finditer(solution) for place in label.span()), len(solution)]
    parts = []
    for start, end in zip(cuts[::2], cuts[1::2], strict=True):
        part = solution[start:end]
        if bare := part.strip():
            start += part.index(bare)
            parts.append(LocatedStep(bare.replace("## Step", "Step"), start, start + len(bare)))
    return parts


def combine_chains(chains: Sequence[ChainVerdict]) -> Findings:
    """The verdict of several chains: the mean of the scores, of the whole and of every step. A step is correct
    where most chains call it so; a tie is decided by the mean score. Never a 1 behind a 0."""
    scores = np.mean([chain.step_scores for chain in chains], axis=0).tolist()
    labels: list[int] = []
    for votes, score in zip(zip(*(chain.step_labels for chain in chains), strict=True), scores, strict=True):
        lead = 2 * sum(votes) - len(votes)
        is_correct = lead > 0 or (lead == 0 and score >= 0.5)
        labels.append(int(is_correct and 0 not in labels))
    whole = [chain.prefix_score for chain in chains if chain.prefix_score is not None]
    first = labels.index(0) if 0 in labels else -1
    return Findings(float(np.mean(whole)), tuple(scores), tuple(labels), first)


class ThinkPRM(ChainVerifier):
    """A generative verifier.

    Example:

        prm = ThinkPRM("mini")
        [result] = prm.predict_correctness_batch(["2 + 3 + 4?"], [["2 + 3 = 5.", "5 + 4 = 9."]])
        result["prefix_score"], result["step_labels"]

    Args:
      model_name_or_path: ``"mini"`` (the model that comes with the package), a Hugging Face folder, or an id such
        as ``launch/ThinkPRM-1.5B``.
      n_thinking_rounds: rounds of :meth:`predict_correctness_batch_sequential_scaling`, and of everything else
        when ``multiround_verifier`` is set; otherwise everything else thinks once. More than 4 need more
        ``triggers``.
      settings: in place of the name and the values.
      mesh: devices to run on (:func:`thinkprm_jax.make_mesh`). ``tensor_parallel_size`` above 1, or None for all
        local devices, makes one.
      model, tokenizer: objects to use instead of loading ``model_name_or_path``.
      sampler: the same with a sampler around them; ``slots`` and ``max_length`` are then those of the sampler.
      enable_prefix_caching: an argument of the original; the chains of one prompt always share its prefill.
      values: of :class:`ThinkPRMSettings`; those that matter most:
        n: chains a solution; their scores are averaged.
        temperature: of the chains; None: 0, greedy, for one chain, else 0.6. (The original's class has 0.7, for
        one chain too.) n above 1 needs one above 0: greedy chains are all the same.
        seed: the result for a solution depends on its own text and this seed. Its neighbours can only change the
        rounding of products (scores by about 1e-6 in float32), and a token where that decides.
        max_length: longest context in tokens: prompt, chain and all that is forced.
        max_gen_tokens: tokens a round may think; None: as many as fit max_length.
        slots: chains that are decoded together.
        dtype: None: float32 on CPUs, bfloat16 elsewhere.
    Raises:
      UserError: the model cannot be loaded, or a setting cannot work.
    """

    Settings = ThinkPRMSettings
    combine = staticmethod(combine_chains)
    settings: ThinkPRMSettings

    def __init__(
        self,
        model_name_or_path: str | Path = "mini",
        *,
        n_thinking_rounds: int = 1,
        multiround_verifier: bool = False,
        settings: ThinkPRMSettings | None = None,
        mesh: Mesh | None = None,
        model: Decoder | None = None,
        tokenizer: Tokenizer | None = None,
        sampler: Sampler | None = None,
        tensor_parallel_size: int | None = 1,
        enable_prefix_caching: bool = True,
        **values: Any,
    ) -> None:
        if settings is None:
            files = None
            if model is None and sampler is None:
                files = refuse_other_kinds(ThinkPRMSettings.kind, model_name_or_path)
            values = {"rounds": n_thinking_rounds if multiround_verifier else 1, **values}
            given = self.given_settings(str(model_name_or_path), model, sampler, values)
            settings = dataclasses.replace(given, files=files)
        if sampler is None and mesh is None:
            mesh = _tensor_mesh(tensor_parallel_size)
        super().__init__(settings, model, tokenizer, sampler, mesh)
        self.n_thinking_rounds = n_thinking_rounds if n_thinking_rounds != 1 else self.settings.rounds
        self._script = self._make_script(self.settings.rounds)
        self._limited: dict[int, VerificationScript] = {}  # by their limit
        self._make_script(self.n_thinking_rounds)  # so that a wrong setting is named here

    @classmethod
    def load(cls, settings: Any, *, mesh: Mesh | None = None, sampler: Sampler | None = None) -> Self:
        return cls(settings=settings, mesh=mesh, sampler=sampler)

    def predict_correctness_batch_sequential_scaling(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """:meth:`predict_correctness_batch` with ``n_thinking_rounds`` rounds, whatever ``multiround_verifier``
        says; n may be above 1."""
        prepare = functools.partial(self.prepare, script=self._make_script(self.n_thinking_rounds))

        def verify(items: Iterable[Item]) -> Iterator[tuple[int, Verdict]]:
            return self.loop.serve(enumerate(items), lambda item: self.write(*item, prepare))

        return [verdict.as_dict() for verdict in verify_all(verify, questions, prefix_steps_batch)]

    def submit_within(self, problem: str, steps: Sequence[str], budget: int) -> Handle[Verdict]:
        if budget not in self._limited:
            limited = dataclasses.replace(self.settings, max_gen_tokens=budget)
            if len(self._limited) >= _MOST_LIMITS:
                self._limited.clear()
            self._limited[budget] = self._script_of(limited)
        return self.write(problem, steps, functools.partial(self.prepare, script=self._limited[budget]))

    def locate(self, solution: str) -> list[LocatedStep]:
        return labelled_parts(solution) if self.settings.split_at == "labels" else super().locate(solution)

    def step_rewards(self, verdict: Verdict) -> list[float]:
        """The scores of the steps (mean over the chains), except that the last one is the score of the whole
        output: aggregated by "last" it is ThinkPRM's own score, by "min" and "prod" the steps count too."""
        return [*verdict.step_scores[:-1], verdict.prefix_score]

    def prepare(
        self, problem: str, steps: Sequence[str], script: VerificationScript | None = None
    ) -> tuple[list[int], Script]:
        """(ids of the prompt, script of a chain); RequestError where no chain fits behind it."""
        script = self._script if script is None else script
        given = self.settings
        ids = encode_prompt(self.tokenizer, problem, steps, given.prompt, given.number_steps, given.opening)
        forced, positions = script.room(len(steps)), self.sampler.positions
        check_room(len(ids), forced, "a chain", self.max_length, positions, script.budget)
        return ids, functools.partial(script, len(steps))

    def _make_script(self, rounds: int) -> VerificationScript:
        return self._script_of(dataclasses.replace(self.settings, rounds=rounds))

    def _script_of(self, settings: ThinkPRMSettings) -> VerificationScript:
        return VerificationScript(self.tokenizer, settings, max_length=self.max_length, end_ids=self.end_ids)


def _tensor_mesh(tensor_parallel_size: int | None) -> Mesh | None:
    if tensor_parallel_size == 1:
        return None
    import jax

    from thinkprm_jax.distributed.mesh import make_mesh

    size = jax.local_device_count() if tensor_parallel_size is None else tensor_parallel_size
    return make_mesh(tensor=size, devices=jax.local_devices()[:size]) if size > 1 else None
