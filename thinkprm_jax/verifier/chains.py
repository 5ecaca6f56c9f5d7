"""Several chains about each of many solutions, side by side on one sampler: what verifiers that write share."""

from __future__ import annotations

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import RequestError
from thinkprm_jax.sampler.handle import Handle, StepLoop, finished, gather
from thinkprm_jax.sampler.request import Request, Result, Script
from thinkprm_jax.verifier.base import ChainVerdict, Findings, Verdict, Verifier, check_item
from thinkprm_jax.verifier.loading import load_sampler
from thinkprm_jax.verifier.settings import SamplingSettings, check_names

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer


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
            ids, script = prepare(problem, check_item(problem, steps))
        except RequestError as error:
            return finished(self.loop, Verdict(error=error, locates=self.judges_steps))
        settings = self.settings
        temperature = settings.temperature
        assert temperature is not None  # settled
        chains = [
            Request(
                ids,
                script,
                temperature=temperature,
                top_p=settings.top_p,
                seed=chain_seed(settings.seed, chain, ids),
            )
            for chain in range(1 if temperature == 0 else self.n)  # greedily all chains are the same one
        ]
        verdict = functools.partial(self._verdict, self.tokenizer.decode(ids))
        return gather(self.loop, list(map(self.sampler.submit, chains)), verdict)

    def _verdict(self, prompt: str, results: Sequence[Result]) -> Verdict:
        """What the chains of a solution say together."""
        for result in results:
            if result.error is not None:
                return Verdict(prompt, error=result.error, locates=self.judges_steps)
        chains = [dataclasses.replace(result.value, output_tokens=result.tokens) for result in results]
        return Verdict.of_chains(prompt, chains * (self.n // len(chains)), self.combine, self.judges_steps)


# (problem, steps) -> (ids of the prompt, script of a chain); RequestError where the solution cannot be judged.
Prepare = Callable[[str, list[str]], tuple[list[int], Script]]


def chain_seed(seed: int, chain: int, prompt: Sequence[int]) -> int:
    """In [0, 2**31), from what defines the chain; with the prompt, so that two solutions never share noise."""
    text = f"{seed} {chain} {' '.join(map(str, prompt))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
