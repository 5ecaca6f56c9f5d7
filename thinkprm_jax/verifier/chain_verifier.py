"""Verifiers that write chains: what all kinds of them share."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import RequestError
from thinkprm_jax.sampler.handle import Handle, StepLoop, finished, gather
from thinkprm_jax.sampler.request import Request, Result, Script
from thinkprm_jax.verifier.base import Verdict, Verifier, check_item
from thinkprm_jax.verifier.findings import ChainVerdict, Findings
from thinkprm_jax.verifier.loading import load_sampler
from thinkprm_jax.verifier.script import chain_seed
from thinkprm_jax.verifier.settings import SamplingSettings, check_names

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

# (problem, steps) -> (ids of the prompt, script of a chain); RequestError where the solution cannot be judged.
Prepare = Callable[[str, list[str]], tuple[list[int], Script]]


class ChainVerifier(Verifier):
    """A verifier that writes chains: a kind says what the prompt and the script of one are, and how several make a
    verdict.

    Args:
      model, tokenizer: objects to use instead of loading the model of the settings.
      sampler: the same with a sampler around them; slots and max_length are then those of the sampler.
    """

    settings: SamplingSettings
    sampler: Sampler

    def __init__(
        self,
        settings: SamplingSettings,
        model: Decoder | None,
        tokenizer: Tokenizer | None,
        sampler: Sampler | None,
        mesh: Mesh | None,
    ) -> None:
        found = settings.settled()
        # Of a given sampler nobody knows the dtype, unless the settings say it.
        self.settings = found if sampler is None else dataclasses.replace(found, dtype=settings.dtype)
        self.sampler = load_sampler(self.settings, model, tokenizer, mesh) if sampler is None else sampler
        self.tokenizer, self.end_ids = self.sampler.tokenizer, self.sampler.end_ids
        self.n, self.max_length = self.settings.n, self.sampler.max_length

    @classmethod
    def given_settings(
        cls, name: str | None, model: Decoder | None, sampler: Sampler | None, values: dict[str, Any]
    ) -> Any:
        """The settings of a verifier by name, or around objects, of which only the objects know the rest."""
        check_names(cls.Settings, values)
        if sampler is not None:
            return cls.Settings(**{**values, "max_length": sampler.max_length})
        if model is not None:
            return cls.Settings(**{**values, "dtype": model.dtype.name})
        return cls.Settings(model=name, **values)

    @abc.abstractmethod
    def prepare(self, problem: str, steps: Sequence[str]) -> tuple[list[int], Script]:
        """(ids of the prompt, script of a chain); RequestError where the solution cannot be judged."""

    @staticmethod
    @abc.abstractmethod
    def combine(chains: Sequence[ChainVerdict]) -> Findings:
        """The verdict of several chains; RequestError where there is none."""

    @property
    def loop(self) -> StepLoop:
        return self.sampler.loop

    def submit(self, problem: str, steps: Sequence[str]) -> Handle[Verdict]:
        return self.write(problem, steps, self.prepare)

    def write(self, problem: str, steps: Sequence[str], prepare: Prepare) -> Handle[Verdict]:
        """:meth:`submit` with another way to prompt and script."""
        try:
            steps = check_item(problem, steps)
            self.tokenizer.check_fits("\n".join([problem, *steps]), self.max_length, self.sampler.positions)
            ids, script = prepare(problem, steps)
        except RequestError as error:
            return finished(self.loop, Verdict(error=error, locates=self.judges_steps))
        settings = self.settings
        temperature = settings.temperature
        assert temperature is not None  # settled
        chains = [
            Request(ids, script, temperature, settings.top_p, seed=chain_seed(settings.seed, chain, ids))
            for chain in range(self.n)
        ]
        verdict = functools.partial(self._verdict, self.tokenizer.decode(ids))
        with self.loop.changed:  # with the same weights, all of them
            handles = list(map(self.sampler.submit, chains))
        return gather(self.loop, handles, verdict)

    def _verdict(self, prompt: str, results: Sequence[Result]) -> Verdict:
        """What the chains of a solution say together."""
        versions = {result.weight_version for result in results}
        errors = [result.error for result in results if result.error is not None]
        if not errors and len(versions) > 1:
            errors = [RequestError("the weights were changed while it was judged: its chains are of both")]
        if errors:
            return Verdict(prompt, error=errors[0], locates=self.judges_steps, weight_version=max(versions))
        chains = [dataclasses.replace(result.value, output_tokens=result.tokens) for result in results]
        verdict = Verdict.of_chains(prompt, chains, self.combine, self.judges_steps)
        return dataclasses.replace(verdict, weight_version=max(versions))
