"""Collecting verification chains: the recipe, and the labelled prefixes that a teacher is asked about.

The paper: problems and solution prefixes of PRM800K, 4 chains each from QwQ-32B-Preview at temperature 0.1, until
1,000 chains have passed the filters. `filters.py` holds the filters, `report.py` the figures.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from thinkprm_jax.arithmetic.task import ArithmeticSource, example
from thinkprm_jax.collect.spool import PrefixTable
from thinkprm_jax.data.prm800k import Prefix, Prm800kCounts, read_prm800k
from thinkprm_jax.errors import UserError
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.recipe import MeshConfig, at_least
from thinkprm_jax.records.datasets import iterate_objects
from thinkprm_jax.records.jsonl import get_field, get_texts
from thinkprm_jax.sampler.request import check_drafts
from thinkprm_jax.seeds import check_seeds


@dataclass(frozen=True)
class Prm800kPrefixes:
    """Prefixes of the labelled path of every row: see :func:`thinkprm_jax.data.prm800k.read_prm800k`."""

    files: tuple[str, ...]  # JSON Lines in the original schema, either phase
    alternatives: bool = False  # also the rejected candidates, each behind the path before it
    whole: bool = True  # the whole labelled path, the first incorrect step included
    cuts: int = 0  # shorter beginnings of each path, at random places; these have no error

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("files must name at least one file")
        at_least(0, self, "cuts")
        if not self.whole and not self.cuts:
            raise ValueError("whole: false and cuts: 0 leave no prefix")


@dataclass(frozen=True)
class GenerationFiles:
    """Generations made elsewhere: JSON Lines with problem, prefix or prefix_steps, traj_gt_labels, generations.

    traj_gt_labels: `+`, `-`, 1, -1, true or false for each step, at least up to the first error.
    """

    files: tuple[str, ...]
    zero: Literal["neutral", "incorrect"] | None = None  # what the label 0 means; a file with it needs this

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("files must name at least one file")


@dataclass(frozen=True)
class CollectionSource:
    """Exactly one of ``prm800k``, ``arithmetic`` and ``generations``."""

    prm800k: Prm800kPrefixes | None = None
    arithmetic: ArithmeticSource | None = None
    generations: GenerationFiles | None = None
    limit: int | None = None  # so many prefixes at most, drawn by the recipe's seed

    def __post_init__(self) -> None:
        if sum(source is not None for source in (self.prm800k, self.arithmetic, self.generations)) != 1:
            raise ValueError("give one of prm800k, arithmetic and generations")
        at_least(1, self, "limit")


@dataclass(frozen=True)
class Teacher:
    """Who writes the chains, and how."""

    model: str  # "mini" (bundled), a folder or a Hugging Face id
    # collection: the paper's. strict: that of published runs of the same collection. verification: the prompt of
    # training and inference, for teachers that are verifiers themselves.
    prompt: Literal["collection", "strict", "verification"] = "collection"
    system: str | None = None  # the system turn; null leaves it to the chat template. Not with verification
    chains: int = 4  # of each prefix
    temperature: float = 0.1
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    max_tokens: int = 4096  # of a generation
    max_length: int = 8192  # of prompt and generation together; a prompt that does not fit is counted as failed
    dtype: Literal["float32", "bfloat16"] | None = None  # null: float32 on CPUs, bfloat16 elsewhere
    quantize: Literal["int8"] | None = None  # weights in eight bits; null: in dtype
    slots: int = 16  # chains decoded together
    drafts: int | None = None  # tokens a step tries that were written before; null: what pays

    def __post_init__(self) -> None:
        at_least(1, self, "chains", "max_tokens", "max_length", "slots")
        at_least(0, self, "temperature", "top_k")
        check_drafts(self.drafts)
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")
        if self.chains > 1 and self.temperature == 0:
            raise ValueError(f"chains {self.chains} needs a temperature above 0: greedy chains are all the same")
        if self.system is not None and self.prompt == "verification":
            raise ValueError("the verification prompt has no system turn")


@dataclass(frozen=True)
class Filters:
    """What is kept. May change between runs in one folder: the generations stay, only the selection is redone.

    labels: process: every verdict up to the first error equals the human label (the paper). outcome: the verdict
      on the whole prefix does, whatever the steps say. none: labels are not looked at.
    """

    labels: Literal["process", "outcome", "none"] = "process"
    max_tokens: int | None = 4096  # of a chain after it is cut behind its last verdict
    balance: bool = True  # as many correct as incorrect prefixes, by leaving out some of the majority
    per_prefix: int | None = None  # chains of one prefix at most
    target: int | None = 1000  # stop once so many are kept; null: go through all prefixes

    def __post_init__(self) -> None:
        at_least(1, self, "max_tokens", "per_prefix", "target")
        if self.balance and self.target == 1:
            raise ValueError("target 1 cannot be balanced")


@dataclass(frozen=True)
class CollectRecipe:
    output: str  # the run's folder; a run found there is continued
    source: CollectionSource
    teacher: Teacher | None = None
    tokenizer: str | None = None  # by which chains are measured: "mini", a folder or an id; default: the teacher's
    filter: Filters = field(default_factory=Filters)
    wave: int = 256  # prefixes between two looks at whether filter.target is reached
    seed: int = 0  # of the order of the prefixes, the cuts, the sampling and the balance
    # Of the teacher: by default every matrix is split over all devices.
    mesh: MeshConfig = field(default_factory=lambda: MeshConfig(data=1, tensor=-1))

    def __post_init__(self) -> None:
        if (self.teacher is None) == (self.source.generations is None):
            raise ValueError("teacher is needed, except with source.generations, which has its own chains")
        if self.teacher is None and self.tokenizer is None:
            raise ValueError("tokenizer is needed with source.generations: chains are measured in tokens")
        at_least(1, self, "wave")
        check_seeds(self, "seed")


# Fields that may change between the parts of one run: no generation depends on them.
FREE_FIELDS = (
    "output", "source.limit", "tokenizer", "filter.", "wave", "mesh.", "teacher.slots", "teacher.drafts",
)  # fmt: skip


@dataclass
class SourceCounts:
    """What the sources held. ``dropped``: rows or prefixes left out before any chain, by reason."""

    rows: int = 0
    prefixes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def select_prefixes(source: CollectionSource, seed: int) -> tuple[Sequence[Prefix], SourceCounts]:
    """The prefixes of a source other than ``generations``, without duplicates, in an order drawn by ``seed``. They
    are on disk, and in memory when they are asked for.

    The order depends on the texts alone, so that neither the order of files nor a `limit` changes it.
    """
    counts, chosen = SourceCounts(), PrefixTable()
    for prefix in _prefixes(source, seed, counts):
        counts.prefixes += 1
        if not chosen.add(_digest(seed, prefix.problem, *prefix.steps), prefix):
            counts.dropped["duplicate prefixes"] += 1
    counts.dropped["beyond the limit"] += chosen.sort(source.limit)
    if not chosen:
        raise UserError("the source holds no labelled prefix")
    return chosen, SourceCounts(counts.rows, counts.prefixes, +counts.dropped)


def _prefixes(source: CollectionSource, seed: int, counts: SourceCounts) -> Iterator[Prefix]:
    if source.arithmetic is not None:
        stream = source.arithmetic
        for index in range(stream.start, stream.start + stream.examples):
            chain = example(stream.seed, index, stream.split)
            counts.rows += 1
            place = f"arithmetic {stream.split}, seed {stream.seed}, {index}"
            yield Prefix(chain.problem, chain.steps, chain.labels, place)
        return
    assert source.prm800k is not None
    for file in source.prm800k.files:
        found = Prm800kCounts()
        for path in read_prm800k(file, alternatives=source.prm800k.alternatives, counts=found):
            yield from cut_path(path, source.prm800k, seed)
        counts.rows += found.rows
        counts.dropped.update(found.dropped)


def cut_path(path: Prefix, settings: Prm800kPrefixes, seed: int) -> Iterator[Prefix]:
    """A labelled path as the recipe wants it: whole, and cut at random places before its end."""
    if settings.whole:
        yield path
    draw = random.Random(_digest(seed, path.problem, *path.steps))
    places = range(1, len(path.steps))
    for length in sorted(draw.sample(places, min(settings.cuts, len(places)))):
        yield Prefix(path.problem, path.steps[:length], path.labels[:length], path.source)


def _digest(seed: int, *texts: str) -> bytes:
    data = json.dumps([seed, *texts])  # escapes lone surrogates, and keeps the texts apart
    return blake2b(data.encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Generated:
    """A prefix with the generations on it.

    tokens: what each has, None where nobody counted; finish: "stop", "length", "context", "error" or "unknown".
    """

    prefix: Prefix
    texts: tuple[str, ...]
    tokens: tuple[int | None, ...]
    finish: tuple[str, ...]


def read_generations(source: GenerationFiles, counts: SourceCounts) -> Iterator[Generated]:
    """Rows of generations made elsewhere. A row whose steps cannot be told apart is counted as dropped.

    Raises:
      UserError: a file cannot be read, or a row is not as described; names file, line and field.
    """
    for file in source.files:
        for place, row in iterate_objects(file):
            counts.rows += 1
            problem = get_field(row, "problem", str, place)
            texts = get_texts(row, "generations", place)
            labels = _labels(get_field(row, "traj_gt_labels", list, place), source.zero, place)
            steps = _steps(row, len(labels), place)
            errors = 0 in labels
            # Labels may end at the first error; the steps behind it are shown to the teacher all the same.
            if not labels or len(labels) > len(steps) or (len(labels) < len(steps) and not errors):
                counts.dropped["steps and labels do not match"] += 1
                continue
            first = labels.index(0) if errors else len(steps)
            labels = [int(index < first) for index in range(len(steps))]
            counts.prefixes += 1
            yield Generated(
                Prefix(problem, steps, labels, place),
                tuple(texts),
                (None,) * len(texts),
                ("unknown",) * len(texts),
            )


_STEP_BREAK = re.compile(r"(?<!\n)\n(?!\n)")  # blank lines stand inside a step: "...\n\n# Answer\n\n12"


def _steps(row: Mapping[str, Any], wanted: int, place: str) -> list[str]:
    """prefix_steps; else the parts of prefix: `Step i:`, lines, or paragraphs where lines are too few."""
    if "prefix_steps" in row:
        return get_texts(row, "prefix_steps", place)
    text = get_field(row, "prefix", str, place)
    split = split_solution(text)
    if re.match(r"\s*Step\s+1\s*:", text):
        return split
    lines = [line.strip() for line in _STEP_BREAK.split(text.strip()) if line.strip()]
    return split if len(lines) < wanted == len(split) else lines  # paragraphs


def _labels(values: Sequence[Any], zero: str | None, place: str) -> list[int]:
    labels = []
    for index, value in enumerate(values):
        if value in ("+", "-"):
            labels.append(int(value == "+"))
        elif isinstance(value, bool) or (isinstance(value, (int, float)) and value in (1, -1)):
            labels.append(int(value == 1))
        elif isinstance(value, (int, float)) and value == 0:
            if zero is None:
                raise UserError(
                    f"{place}: traj_gt_labels[{index}] is 0: say in source.generations.zero whether that is "
                    "`neutral` (counts as correct, as in PRM800K) or `incorrect`"
                )
            labels.append(int(zero == "neutral"))
        else:
            raise UserError(
                f'{place}: traj_gt_labels[{index}] is {json.dumps(value)}; it must be "+", "-", 1 or -1'
            )
    return labels
