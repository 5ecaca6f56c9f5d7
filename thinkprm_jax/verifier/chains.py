"""Several chains about each of many solutions, side by side on one sampler: what verifiers that write share."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import RequestError
from thinkprm_jax.sampler.request import Request, Script, done_request
from thinkprm_jax.verifier.base import ChainVerdict, Findings, Item, Verdict, Verifier, check_item
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

    def verify(self, items: Iterable[Item | None]) -> Iterator[tuple[int, Verdict]]:
        for index, written in write_chains(self.sampler, items, self.prepare, self.settings):
            yield index, self._verdict(written)

    def _verdict(self, written: Written) -> Verdict:
        if written.error is not None:
            return Verdict(written.prompt, error=written.error, locates=self.judges_steps)
        return Verdict.of_chains(written.prompt, written.chains, self.combine, self.judges_steps)


@dataclasses.dataclass
class Written:
    """All that was written about one solution: n chains, or the reason why one of them failed.

    chains: what the script returned, with ``output_tokens`` set; empty where ``error`` says why.
    """

    prompt: str = ""
    chains: tuple[ChainVerdict, ...] = ()
    error: RequestError | None = None


# (problem, steps) -> (ids of the prompt, script of a chain); RequestError where the solution cannot be judged.
Prepare = Callable[[str, list[str]], tuple[list[int], Script]]


def write_chains(
    sampler: Sampler, items: Iterable[Item | None], prepare: Prepare, sampling: SamplingSettings
) -> Iterator[tuple[int, Written]]:
    """(index of the item, what was written) as they finish, in any order.

    Args:
      items: (problem, steps); taken from the iterable as slots become free. None: there is none at the moment.
    """
    owners: dict[int, tuple[int, int]] = {}  # request -> (item, chain)
    open_items: dict[int, _OpenItem] = {}
    temperature = sampling.temperature
    assert temperature is not None  # settled
    chains = 1 if temperature == 0 else sampling.n

    def requests() -> Iterator[Request | None]:
        asked, number = 0, itertools.count()
        for item in items:
            if item is None:
                yield None
                continue
            index, (problem, steps) = next(number), item
            try:
                ids, script = prepare(problem, check_item(problem, steps))
            except RequestError as error:
                open_items[index], owners[asked] = _OpenItem("", [None]), (index, 0)
                asked += 1
                yield done_request(error=error)
                continue
            open_items[index] = _OpenItem(sampler.tokenizer.decode(ids), [None] * chains)
            for chain in range(chains):
                owners[asked] = (index, chain)
                asked += 1
                seed = chain_seed(sampling.seed, chain, ids)
                yield Request(ids, script, temperature=temperature, top_p=sampling.top_p, seed=seed)

    for number, result in sampler.run(requests()):
        index, chain = owners.pop(number)
        item = open_items[index]
        item.error = item.error or result.error
        item.chains[chain] = result.value and dataclasses.replace(result.value, output_tokens=result.tokens)
        item.missing -= 1
        if not item.missing:
            yield index, open_items.pop(index).written(copies=sampling.n // chains)


@dataclasses.dataclass
class _OpenItem:
    """An item some of whose chains are still running."""

    prompt: str
    chains: list[Any]
    error: RequestError | None = None
    missing: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.chains)

    def written(self, copies: int) -> Written:
        if self.error is not None:
            return Written(self.prompt, error=self.error)
        return Written(self.prompt, tuple(chain for chain in self.chains if chain is not None) * copies)


def chain_seed(seed: int, chain: int, prompt: Sequence[int]) -> int:
    """In [0, 2**31), from what defines the chain; with the prompt, so that two solutions never share noise."""
    text = f"{seed} {chain} {' '.join(map(str, prompt))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
