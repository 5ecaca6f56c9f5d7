"""The data of a discriminative verifier (the paper's DiscPRM): a mark after every step, `+` or `-` at each mark.

A text is the problem, then for each step "\\nStep i: ..." and a separator, as in the paper's public code:

    problem \\n Step 1 : ... [ки] \\n Step 2 : ... [ки]
                              +                    -       <- the target at that very position

The logits of `+` and `-` at a separator are the verdict on the step before it. So the target is a label and not
the next token (`TokenisedExample.targets`), and one pass over the text gives the verdicts on all its steps.

Problem and steps are encoded apart from one another and from the separator, which is appended as an id: no merge
of the tokenizer reaches over a seam, whatever a step ends with. Scores are read at the positions where we put a
separator, never where its id happens to stand. (The public code searches for the id, which in R1's tokenizer is
the Russian letter `и`, and takes any such letter of a step for a separator.)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from thinkprm_jax.data.batches import TokenisedExample
from thinkprm_jax.data.chains import NOT_ENCODABLE, TOO_LONG, ChainReport, LeftOut
from thinkprm_jax.data.sources import TokenisedDataset, stable_hash
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.protocol.prompts import strip_step_label
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from thinkprm_jax.data.prm800k import Prefix

KEY = "thinkprm"  # of config.json: what kind of verifier a folder holds
TASK = "discriminative"


@dataclasses.dataclass(frozen=True)
class MarkIds:
    """Token ids of the separator and of the two labels."""

    separator: int
    positive: int
    negative: int

    @property
    def choices(self) -> tuple[int, int]:
        """What the loss and the score choose between: label 1 first."""
        return self.positive, self.negative


@dataclasses.dataclass(frozen=True)
class StepwiseText:
    """ids [T]; places: where the separators stand, one a step."""

    ids: list[int]
    places: list[int]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How problem and steps become ids, and which ids are the verdicts; the defaults are the paper's.

    Attributes:
      separator, labels: texts whose last sub-token is the mark (` ки` is two tokens of the R1 tokenizer and five
        of the bundled one). labels: correct, incorrect.
      bos: whether the text begins with the begin-of-sentence token. The public code encodes without special
        tokens, in training and in scoring alike, so: no.
      opening: what stands between the problem and the first step.
    """

    separator: str = " ки"
    labels: tuple[str, str] = ("+", "-")
    bos: bool = False
    opening: str = "\n"

    def to_config(self) -> dict[str, Any]:
        """What config.json says of such a verifier under the key ``thinkprm``."""
        content: dict[str, Any] = {"task": TASK, "separator": self.separator, "labels": list(self.labels)}
        content |= {"bos": True} if self.bos else {}
        return content | ({} if self.opening == "\n" else {"opening": self.opening})

    @classmethod
    def from_config(cls, content: Mapping[str, Any], place: str) -> Layout:
        """The same backwards; ``place`` names it in errors.

        Raises:
          UserError: a key is missing, unknown or of a wrong type.
        """
        known = ("task", "separator", "labels", "bos", "opening")
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise UserError(f"{place}: {unknown[0]} is not supported (we have: {', '.join(known)})")
        separator, labels, bos = content.get("separator"), content.get("labels"), content.get("bos", False)
        if not isinstance(separator, str):
            raise UserError(f"{place}: separator must be a text, not {json.dumps(separator)}")
        if not (isinstance(labels, list) and len(labels) == 2 and all(isinstance(text, str) for text in labels)):
            raise UserError(f"{place}: labels must be a list of two texts, not {json.dumps(labels)}")
        if not isinstance(bos, bool):
            raise UserError(f"{place}: bos must be true or false, not {json.dumps(bos)}")
        opening = content.get("opening", "\n")
        if not isinstance(opening, str):
            raise UserError(f"{place}: opening must be a text, not {json.dumps(opening)}")
        return cls(separator, (labels[0], labels[1]), bos, opening)


PUBLISHED = Layout()


class StepEncoder:
    """Problem and steps to ids, with one tokenizer and layout.

    The last sub-token of ` ки` need not be a letter: in the bundled tokenizer it is the byte B8. No text can be
    taken for it there, since B8 stands only inside a character and no text ends within one.

    Raises:
      UserError: this tokenizer gives no three different marks, or has no begin-of-sentence token where the layout
        has one.
    """

    def __init__(self, tokenizer: Tokenizer, layout: Layout = PUBLISHED) -> None:
        self.layout = layout
        self._tokenizer = tokenizer
        parts = [tokenizer.encode_plain(text) for text in (layout.separator, *layout.labels)]
        if not all(parts):
            raise UserError("the separator and the labels of a discriminative verifier must not be empty")
        self.marks = MarkIds(*(ids[-1] for ids in parts))
        if len({self.marks.separator, *self.marks.choices}) < 3:
            texts = ", ".join(repr(text) for text in (layout.separator, *layout.labels))
            raise UserError(f"the marks {texts} do not end in three different tokens of this tokenizer")
        if layout.bos and tokenizer.bos_id is None:
            raise UserError("the layout begins with a begin-of-sentence token, this tokenizer has none")

    @property
    def choices(self) -> tuple[int, int]:
        """Ids of the two labels, label 1 first."""
        return self.marks.choices

    def encode(self, problem: str, steps: Sequence[str]) -> StepwiseText:
        """Problem and steps are untrusted: no control string in them becomes a control token.

        A step that already begins with `Step k:` loses that label first.

        Raises:
          RequestError: the text cannot be encoded (a lone surrogate).
        """
        ids = self._tokenizer.encode_plain(problem)
        if self.layout.bos and self._tokenizer.bos_id is not None:
            ids.insert(0, self._tokenizer.bos_id)
        places = []
        for number, step in enumerate(steps, start=1):
            before = self.layout.opening if number == 1 else "\n"
            text = f"{before}Step {number}: {strip_step_label(step)}"
            ids += [*self._tokenizer.encode_inside(text), self.marks.separator]
            places.append(len(ids) - 1)
        return StepwiseText(ids, places)

    def show(self, text: StepwiseText) -> str:
        """The text for people: separators whole, where the last sub-token alone may be half a letter."""
        pieces, start = [], 0
        for place in text.places:
            pieces.append(self._tokenizer.decode(text.ids[start:place]) + self.layout.separator)
            start = place + 1
        return "".join(pieces)


class LabelledSteps(Protocol):
    """A solution with a label (1, 0) for each of its steps: a chain, a PRM800K prefix."""

    @property
    def problem(self) -> str: ...

    @property
    def steps(self) -> Sequence[str]: ...

    @property
    def labels(self) -> Sequence[int]: ...

    @property
    def place(self) -> str:
        """Where it was read, for messages; empty where it was drawn."""


class LabelledSource(Protocol):
    """Labelled solutions by index, each a pure function of it (``sources.ChainSource`` is one)."""

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, index: int) -> LabelledSteps: ...


class ListedSteps:
    """Labelled solutions of a list."""

    def __init__(self, solutions: Sequence[LabelledSteps]) -> None:
        self._solutions = solutions

    def __len__(self) -> int:
        return len(self._solutions)

    def __call__(self, index: int) -> LabelledSteps:
        return self._solutions[index]

    @cached_property
    def fingerprint(self) -> str:
        return stable_hash([found.problem, list(found.steps), list(found.labels)] for found in self._solutions)


class DiscriminativeDataset(TokenisedDataset):
    """Labelled solutions as rows of the discriminative task.

    A solution goes up to its first incorrect step, its last target: PRM800K's labels end there, and no label says
    what "correct" means of a step behind an error. A text that would be longer than ``max_length`` is left
    out, none is cut. All steps weigh the same.
    """

    def __init__(
        self,
        size: int,
        solution: LabelledSource,
        encoder: StepEncoder,
        max_length: int,
        name: str = "data",
        report: ChainReport | None = None,
    ) -> None:
        super().__init__(size, name, report)
        self._solution, self._encoder, self._max_length = solution, encoder, max_length

    def identity(self) -> list[Any]:
        """The solutions, and how one text becomes ids."""
        probe = self._encoder.encode("48 * 2 = ?", ["48 * 2 = 96."])
        marks = dataclasses.astuple(self._encoder.marks)
        return [self._solution.fingerprint, probe.ids, marks]

    def place(self, index: int) -> str:
        return self._solution(index).place or super().place(index)

    def make(self, index: int) -> TokenisedExample:
        solution = self._solution(index)
        labels = list(solution.labels)
        labels = labels[: labels.index(0) + 1] if 0 in labels else labels
        try:
            text = self._encoder.encode(solution.problem, solution.steps[: len(labels)])
        except RequestError as error:
            raise LeftOut(NOT_ENCODABLE, str(error)) from error
        if len(text.ids) > self._max_length:
            raise LeftOut(TOO_LONG, f"{len(text.ids)} tokens, the longest row holds {self._max_length}")
        marks = self._encoder.marks
        targets, weights = np.zeros(len(text.ids), np.int32), np.zeros(len(text.ids), np.float32)
        targets[text.places] = [marks.positive if label else marks.negative for label in labels]
        weights[text.places] = 1.0
        return TokenisedExample(np.asarray(text.ids, np.int32), weights, targets)


def prm800k_solutions(path: str, report: ChainReport | None = None) -> list[Prefix]:
    """The labelled path of every row of a PRM800K file; see :func:`thinkprm_jax.data.prm800k.read_prm800k`.

    The paper's 98K examples are whole rows: the rejected candidates beside a path are no examples of their own.

    Args:
      report: is told how many rows there were, and how many have no such path.
    """
    from thinkprm_jax.data.prm800k import Prm800kCounts, read_prm800k

    counts = Prm800kCounts()
    solutions = list(read_prm800k(path, counts=counts))
    if report is not None:
        report.rows += counts.rows
        report.reasons.update(counts.dropped)
    if not solutions:
        raise UserError(f"{path}: no labelled solutions in it")
    return solutions
