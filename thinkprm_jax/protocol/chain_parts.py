"""What a chain is read as: verdicts in boxes, and the places where it names steps. Data of :mod:`.reading`."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BoxedVerdict:
    """A box that says correct or incorrect.

    start, end: of the box; position: of its word. inverted: the word is negated, and ``label`` its opposite.
    names: the step that the box names itself.
    """

    start: int
    end: int
    label: int
    position: int
    inverted: bool
    names: re.Match[str] | None = None


class StepRole(enum.Enum):
    """What a step that is named is in its sentence."""

    LABEL = enum.auto()  # `Step 2:`
    TURN = enum.auto()  # `Moving on to step 2`
    SUBJECT = enum.auto()  # the sentence begins with it
    PASSING = enum.auto()  # it stands inside the sentence
    REFERENCE = enum.auto()  # it helps: `using the result of step 1`
    AFTER = enum.auto()  # it names the step of the verdict before it
    ALL = enum.auto()  # a group: `all steps`


class StepGroup(enum.Enum):
    """Several steps that are named by no numbers."""

    ALL = enum.auto()  # `all steps`
    REST = enum.auto()  # `the others`: those that this round has not judged yet
    BEFORE = enum.auto()  # `all previous steps`
    SO_FAR = enum.auto()  # `all steps above`: with the last that was judged
    AFTER = enum.auto()  # `the later steps`


@dataclass
class StepMention:
    """A place where steps are named.

    steps: from 1. opens_line, opens_paragraph: its sentence does. ordinal: `the second step`; offset: `the next
    step`, from the one under discussion. group: they are named by no numbers, so ``steps`` is () until a verdict
    is on them; heads: its sentence begins with the group; count: `the previous two steps`; negated: `none of the
    steps`; partial: `not all steps`.
    """

    start: int
    end: int
    steps: Sequence[int]
    role: StepRole
    opens_line: bool = False
    opens_paragraph: bool = False
    ordinal: bool = False
    offset: int = 0
    group: StepGroup | None = None
    heads: bool = False
    count: int = 0
    negated: bool = False
    partial: bool = False


@dataclass
class StepTopic:
    """The step under discussion, and where it was named. soft: by no label."""

    steps: Sequence[int]
    start: int
    soft: bool
    judged: bool = False


@dataclass(frozen=True)
class NamedVerdict:
    """A verdict and the steps it is on; None: the chain does not say. carried: they are the topic, since its
    sentence names none."""

    verdict: BoxedVerdict
    steps: Sequence[int] | None
    carried: StepTopic | None = None
