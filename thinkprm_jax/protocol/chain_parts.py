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
    ALL = enum.auto()  # `all steps`: counts as the subject of a verdict alone


@dataclass
class StepMention:
    """A place where steps are named.

    steps: from 1. opens_line, opens_paragraph: its sentence does. ordinal: `the second step`; offset: `the next
    step`, from the one under discussion.
    """

    start: int
    end: int
    steps: Sequence[int]
    role: StepRole
    opens_line: bool = False
    opens_paragraph: bool = False
    ordinal: bool = False
    offset: int = 0


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
