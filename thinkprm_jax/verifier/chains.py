"""Several chains about each of many solutions, side by side on one sampler: what verifiers that write share."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.sampler.request import Request, Script, done_request

if TYPE_CHECKING:
    from thinkprm_jax.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How chains are drawn.

    n: chains a solution. temperature: 0 is greedy; all n chains are then the same one, which is run once.
    seed: with the prompt and the chain's number it decides the chain.
    """

    n: int = 1
    temperature: float = 0.0
    seed: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"n is {self.n}, it must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}, it must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}, it must lie in (0, 1]")


@dataclasses.dataclass
class Written:
    """All that was written about one solution: n chains, or the reason why one of them failed.

    chains: what the script returned, with ``output_tokens`` set; empty where ``error`` says why.
    """

    prompt: str = ""
    chains: tuple[Any, ...] = ()
    error: RequestError | None = None


# (problem, steps) -> (ids of the prompt, script of a chain); RequestError where the solution cannot be judged.
Prepare = Callable[[str, list[str]], tuple[list[int], Script]]


def write_chains(
    sampler: Sampler, items: Iterable[tuple[str, Sequence[str]] | None], prepare: Prepare, sampling: Sampling
) -> Iterator[tuple[int, Written]]:
    """(index of the item, what was written) as they finish, in any order.

    Args:
      items: (problem, steps); taken from the iterable as slots become free. None: there is none at the moment.
    """
    owners: dict[int, tuple[int, int]] = {}  # request -> (item, chain)
    open_items: dict[int, _OpenItem] = {}
    chains = 1 if sampling.temperature == 0 else sampling.n

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
                yield Request(ids, script, temperature=sampling.temperature, top_p=sampling.top_p, seed=seed)

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


def check_item(problem: str, steps: Sequence[str]) -> list[str]:
    """The steps; RequestError where there is nothing to judge."""
    if not isinstance(problem, str):
        raise RequestError(f"the problem is {type(problem).__name__}, not text")
    if isinstance(steps, str):
        raise RequestError("the steps are one text: give a list, or split it with split_solution")
    if not isinstance(steps, Iterable):
        raise RequestError(f"the steps are {type(steps).__name__}, not a list")
    steps = list(steps)
    if not steps:
        raise RequestError("there are no steps to judge")
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, str):
            raise RequestError(f"step {number} is {type(step).__name__}, not text")
    return steps


def chain_seed(seed: int, chain: int, prompt: Sequence[int]) -> int:
    """In [0, 2**31), from what defines the chain; with the prompt, so that two solutions never share noise."""
    text = f"{seed} {chain} {' '.join(map(str, prompt))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def check_lengths(name: str, questions: Sequence[str], others: Sequence[Any]) -> None:
    for what, value in (("questions", questions), (name, others)):
        if isinstance(value, str):
            raise UserError(f"{what} is one text: give a list")
    if len(questions) != len(others):
        raise UserError(f"there are {len(questions)} questions and {len(others)} {name}")


def predict_batch(
    verify: Callable[[Iterable[tuple[str, Sequence[str]]]], Iterator[tuple[int, Any]]],
    questions: Sequence[str],
    prefix_steps_batch: Sequence[Sequence[str]],
    warn: Callable[..., None],
) -> list[dict[str, Any]]:
    """``as_dict()`` of every verdict, in order, for the interface of the original; ``warn`` is told of errors."""
    check_lengths("prefix_steps_batch", questions, prefix_steps_batch)
    results: list[dict[str, Any]] = [{} for _ in questions]
    for index, verdict in verify(zip(questions, prefix_steps_batch, strict=True)):
        results[index] = verdict.as_dict()
        if verdict.error is not None:
            warn("solution %d was not judged: %s", index, verdict.error)
    return results


def score_outputs(
    verifier: Any, questions: Sequence[str], outputs: Sequence[Sequence[str]]
) -> list[list[tuple[list[float], float]]]:
    """[question][output] -> (step scores, score of the whole), for the reward-model interface of search-and-learn.
    Outputs are whole texts, cut by the verifier's ``split``.

    Raises:
      RequestError: an output cannot be judged (an empty one, for example).
    """
    check_lengths("outputs", questions, outputs)
    for question, texts in enumerate(outputs):
        if isinstance(texts, str):
            raise UserError(f"outputs[{question}] is one text: give a list of texts for each question")
    places = [(i, j) for i, texts in enumerate(outputs) for j in range(len(texts))]
    scores: list[list[tuple[list[float], float]]] = [[([], 0.0) for _ in texts] for texts in outputs]
    items = ((questions[i], verifier.split(outputs[i][j])) for i, j in places)
    for index, verdict in verifier.verify(items):
        i, j = places[index]
        if verdict.error is not None:
            raise RequestError(f"question {i}, output {j}: {verdict.error}")
        scores[i][j] = (verdict.step_scores, verdict.prefix_score)
    return scores
