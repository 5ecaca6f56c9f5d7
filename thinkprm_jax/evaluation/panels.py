"""Pictures as data: what is to be seen in each panel. :mod:`thinkprm_jax.views.plots` draws them.

curve = Curve("weighted", [(1, estimate), (2, estimate)])
panel = CurvesPanel([curve], x_label="solutions (N)", y_label="accuracy")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from thinkprm_jax.evaluation.intervals import Estimate
from thinkprm_jax.evaluation.metrics import ReliabilityBin

AxisScale = Literal["linear", "log2", "log10"]


@dataclass(frozen=True)
class Curve:
    """A line through figures.

    Attributes:
      points: (x, figure), in the order of x.
      reference: something to compare with (a bound, a baseline): grey and dashed.
      marks: a short text for each point, written above it.
    """

    name: str
    points: Sequence[tuple[float, Estimate]]
    reference: bool = False
    marks: Sequence[str] = ()


@dataclass(frozen=True)
class CurvesPanel:
    """Lines with bars for their intervals. Undefined figures are left out.

    Every value of x stands at the axis where the scale is "log2" (N, chains), so give few of them.
    """

    curves: Sequence[Curve]
    x_label: str
    y_label: str
    title: str = ""
    x_scale: AxisScale = "log2"
    percent: bool = False


@dataclass(frozen=True)
class ReliabilityPanel:
    """How often a verifier was right, against how sure it was; below it, the share of the solutions in each bin.

    Attributes:
      bins: name of a verifier -> its bins, of :func:`thinkprm_jax.evaluation.metrics.reliability_bins`.
    """

    bins: Mapping[str, Sequence[ReliabilityBin]]
    title: str = ""


@dataclass(frozen=True)
class PointsPanel:
    """A row a figure: its name and n, its point with the interval, its value.

    Attributes:
      rows: (name, figure) from top to bottom.
    """

    rows: Sequence[tuple[str, Estimate]]
    x_label: str
    title: str = ""


Panel = CurvesPanel | ReliabilityPanel | PointsPanel
