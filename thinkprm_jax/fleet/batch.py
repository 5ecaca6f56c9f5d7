"""The stage that judges, for pipelines of many machines: a callable class that holds a verifier."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.inputs import parse_solution
from thinkprm_jax.verifier.rows import JudgedRow, judge_rows

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.verifier.base import Verifier
    from thinkprm_jax.verifier.settings import VerifierSettings

Batch = TypeVar("Batch", bound=Any)

READ = ("problem", "question", "steps", "completions", "solution")  # columns; all others pass through
ADDED = ("prefix_score", "step_scores", "step_labels", "error", "verdict", "verifier")


class ScoreBatch:
    """A verifier as a stage of a pipeline: called with a batch of rows, gives them back with their verdicts.

    It is made once in each worker, which loads the model, and called with batch after batch; several threads may
    call it at once, and then share the sampler's slots. With Ray Data::

        rows = ray.data.read_parquet("gs://bucket/solutions")
        judged = rows.map_batches(
            ScoreBatch, fn_constructor_args=["mini"], batch_size=256, compute=ray.data.ActorPoolStrategy(size=2)
        )
        judged.write_parquet("gs://bucket/verdicts")

    Example:

        score = ScoreBatch("mini")
        batch = score({"problem": ["2 + 3?", "2 + 3?"], "steps": [["2 + 3 = 5."], ["2 + 3 = 6."]]})
        print(batch["prefix_score"], batch["step_labels"])

    A copy of it that is pickled is made anew where it is unpickled.

    Args:
      settings: of :func:`verifier_settings`; or its ``model``, and then ``kind`` and ``values`` are its others.
      mesh: devices to run on.
    Raises:
      UserError: the settings cannot work, or the model cannot be loaded.
    """

    def __init__(
        self,
        settings: VerifierSettings | str | None = "mini",
        *,
        kind: str | None = None,
        mesh: Mesh | None = None,
        **values: Any,
    ) -> None:
        from thinkprm_jax.runtime import enable_compilation_cache
        from thinkprm_jax.verifier.loading import with_fingerprints
        from thinkprm_jax.verifier.registry import load_verifier, verifier_settings
        from thinkprm_jax.verifier.settings import VerifierSettings

        self._made_with = settings, kind, mesh, values
        if not isinstance(settings, VerifierSettings):
            settings = verifier_settings(settings, kind=kind, default="thinkprm", **values)
        enable_compilation_cache()
        settings = with_fingerprints(settings)
        self.verifier: Verifier = load_verifier(settings, mesh=mesh)
        self._stamp = json.dumps(settings.stamp)

    def __reduce__(self) -> tuple[Any, ...]:
        settings, kind, mesh, values = self._made_with
        return _make, (settings, kind, mesh, values)

    def __call__(self, batch: Batch) -> Batch:
        """The same rows with verdicts.

        Args:
          batch: columns, a mapping from names to arrays or lists of one length (Ray's ``numpy``); a pandas
            ``DataFrame``; a pyarrow ``Table``; or a list of rows, which are mappings. A row has ``problem`` (or
            ``question``) and ``steps``, ``solution`` or ``completions``, as of `thinkprm score`.
        Returns: the same kind, with all its columns and those of ``ADDED``: prefix_score, float64, NaN where there
          is none; step_scores and step_labels, lists; error, a text or None; verdict, JSON, as `thinkprm score`
          writes it; verifier, JSON, the settings. In a batch with a column ``completions`` the first five are
          lists, of one for each completion.
        Raises:
          UserError: names row and field: a row that is none, or has such a column already. A solution that cannot
            be judged is no reason: its ``error`` says why.
        """
        rows = _rows(batch)
        parsed = [parse_solution(row, f"row {number}", ADDED) for number, row in enumerate(rows)]
        found: list[JudgedRow | None] = [None] * len(rows)
        for number, judged in judge_rows(self.verifier, enumerate(parsed)):
            found[number] = judged
        many = any("completions" in row for row in rows)
        added = [self._columns(judged, many) for judged in found if judged is not None]
        return _with_columns(batch, added, many)

    def _columns(self, judged: JudgedRow, many: bool) -> dict[str, Any]:
        records = judged.record({}).verdicts
        each: list[tuple[Any, ...]] = [
            (
                float("nan") if record.prefix_score is None else record.prefix_score,
                list(record.step_scores or ()),
                list(record.step_labels or ()),
                record.error,
                json.dumps(record.to_dict()),
            )
            for record in records
        ]
        columns = [list(column) for column in zip(*each, strict=True)] if each else [[] for _ in ADDED[:-1]]
        values = columns if many else [column[0] for column in columns]
        return dict(zip(ADDED, [*values, self._stamp], strict=True))


def _make(settings: Any, kind: str | None, mesh: Any, values: dict[str, Any]) -> ScoreBatch:
    return ScoreBatch(settings, kind=kind, mesh=mesh, **values)


def _rows(batch: Any) -> list[dict[str, Any]]:
    """What is looked at of each row."""
    if hasattr(batch, "to_pylist"):  # a pyarrow.Table
        names = [name for name in batch.column_names if name in (*READ, *ADDED)]
        return list(batch.select(names).to_pylist())
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return [{name: row[name] for name in (*READ, *ADDED) if name in row} for row in batch]
    if not (isinstance(batch, Mapping) or hasattr(batch, "columns")):
        raise UserError(f"batch: must be columns, a table or a list of rows, this is {type(batch).__name__}")
    names = [name for name in (*READ, *ADDED) if name in batch]
    columns = [list(batch[name]) for name in names]
    if len({len(column) for column in columns}) > 1:
        raise UserError("batch: its columns are not of one length")
    return [dict(zip(names, map(_plain, values), strict=True)) for values in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """Of numpy and pandas what a row of JSON would have."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _with_columns(batch: Any, added: Sequence[Mapping[str, Any]], many: bool) -> Any:
    """The batch with columns more. many: which have a list for each row, but the last."""
    if hasattr(batch, "to_pylist"):
        import pyarrow

        # Said, since a batch without errors, or without steps, would have columns of another type.
        types = _arrow_types(pyarrow, many)
        for name in ADDED:
            batch = batch.append_column(name, pyarrow.array([row[name] for row in added], types[name]))
        return batch
    if hasattr(batch, "to_dict") and hasattr(batch, "columns"):
        import pandas

        # Without its dtype said, None would become NaN in a column of texts.
        columns = {name: _array([row[name] for row in added]) for name in ADDED}
        series = {name: pandas.Series(column, batch.index, column.dtype) for name, column in columns.items()}
        return batch.assign(**series)
    if isinstance(batch, Mapping):
        return {**batch, **{name: _array([row[name] for row in added]) for name in ADDED}}
    return [{**row, **more} for row, more in zip(batch, added, strict=True)]


def _arrow_types(pyarrow: Any, many: bool) -> dict[str, Any]:
    text, number = pyarrow.string(), pyarrow.float64()
    each = [number, pyarrow.list_(number), pyarrow.list_(pyarrow.int64()), text, text]
    return dict(zip(ADDED, [*(map(pyarrow.list_, each) if many else each), text], strict=True))


def _array(values: Sequence[Any]) -> np.ndarray:
    """[B], of float64 where these are numbers, else of objects; numpy would make a matrix of lists."""
    if values and all(isinstance(value, float) for value in values):
        return np.asarray(values, np.float64)
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array
