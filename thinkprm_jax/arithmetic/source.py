"""The chains of the synthetic task as a source of training examples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from thinkprm_jax.arithmetic.task import PLAIN, ArithmeticForm, example
from thinkprm_jax.data.chains import LabelledChain
from thinkprm_jax.data.sources import chain_content, stable_hash


@dataclass(frozen=True)
class ArithmeticChains:
    """Chains of the synthetic task by index, counted from ``start``. form: default: `arithmetic.PLAIN`."""

    seed: int
    split: str
    start: int
    form: ArithmeticForm | None = None

    @property
    def unchecked(self) -> bool:
        return False

    def __call__(self, index: int) -> LabelledChain:
        return example(self.seed, self.start + index, self.split, self.form or PLAIN)

    @cached_property
    def fingerprint(self) -> str:
        """Of the arguments and, since another version of the task may draw other problems, of a few chains."""
        arguments: list[Any] = ["arithmetic", self.seed, self.split, self.start]
        if self.form is not None:
            arguments.append(asdict(self.form))
        return stable_hash([arguments, *(chain_content(self(index)) for index in range(8))])
