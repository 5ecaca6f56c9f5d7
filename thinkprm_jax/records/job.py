"""What a job of several processes is, in files on which all of them agree.

OUT/.job/job.json       of what inputs and settings, in how many parts: the first process writes it
OUT/.job/models.json    the fingerprints of the models that make the rows: the first one that has them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thinkprm_jax.distributed.rank import Rank
from thinkprm_jax.errors import UserError
from thinkprm_jax.records.claims import LEASE_SECONDS, create_whole
from thinkprm_jax.records.datasets import JOB
from thinkprm_jax.records.files import atomic_write
from thinkprm_jax.records.output import LazyInputs, fingerprints_of, other_model
from thinkprm_jax.records.output_index import same_rows
from thinkprm_jax.records.parts import part_name
from thinkprm_jax.records.row_source import RowSource, split_rows
from thinkprm_jax.records.schema import FINGERPRINTS, Row
from thinkprm_jax.storage import Location

FORMAT = "job/1"
MISSING = 3  # exit status of a program: others hold what is left
ROWS_A_PART = 10_000  # at most, where nobody says how many parts there are to be
_PARTS_A_PROCESS = 4  # at least, so that the last ones are not waited for long


@dataclass(frozen=True)
class Sharing:
    """How a process takes part in a job.

    Attributes:
      rank: which of them it is. parts: how many the job is to have; None: as many as the rows need.
      lease: seconds without a sign of life, after which a process is dead.
      waits: for what others hold; else it ends.
    """

    rank: Rank = field(default_factory=Rank)
    parts: int | None = None
    lease: float = LEASE_SECONDS
    waits: bool = True

    def parts_of(self, rows: int, size: int = ROWS_A_PART, each: int = _PARTS_A_PROCESS) -> int:
        """How many parts so many rows have.

        Args:
          size: rows of a part, at most. each: parts of a process, at least.
        """
        if self.parts is not None:
            return self.parts
        wanted = self.rank.processes * each if self.rank.processes > 1 else 1
        return max(1, min(max(wanted, -(-rows // size)), rows))

    @property
    def process(self) -> tuple[int, int]:
        """Which of how many."""
        return self.rank.process, self.rank.processes


@dataclass(frozen=True)
class JobPlan:
    """What a job is, for all its processes.

    Attributes:
      stamp, current: as of :class:`thinkprm_jax.records.output.OrderedOutput`.
      parts: how many, where this process is the first; the others take those that there are.
      form: of the parts, see :mod:`thinkprm_jax.records.parts`.
      columns: makes the columns of Parquet, when they are needed.
      check: looks at inputs before any of them is used; `UserError` where one is none.
      process: which of how many this is; it begins with another part than the others.
      agreed: what else all processes must have alike, as ``stamp``, that does not stand in the rows.
      beside: endings of further files of lines, which grow beside the rows of a part that is not done.
    """

    stamp: Mapping[str, Mapping[str, Any]]
    parts: int
    form: str = "jsonl"
    columns: Callable[[], Mapping[str, Any]] | None = None
    current: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    check: Callable[[range], object] = lambda rows: None
    process: tuple[int, int] = (0, 1)
    lease: float = LEASE_SECONDS
    agreed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    beside: Sequence[str] = ()


@dataclass
class JobState:
    """How far all processes are.

    Attributes:
      rows, parts: done, of how many there are. held: part -> host:number of the other process on it.
    """

    rows: int
    parts: int
    held: Mapping[int, str] = field(default_factory=dict)

    @property
    def waiting_for(self) -> str:
        """In words."""
        parts = ", ".join(f"{part} ({holder})" for part, holder in sorted(self.held.items())[:8])
        return f"others work on part {parts}" if parts else "nobody works on them"


def open_job(folder: Location, kind: type[Row], inputs: LazyInputs, plan: JobPlan) -> dict[str, Any]:
    """The content of job.json, which is written where there is none.

    Raises:
      UserError: the folder holds something else, or the job of other inputs or settings.
    """
    stamp = {
        name: {key: value for key, value in plan.current(made).items() if key not in FINGERPRINTS}
        for name, made in plan.stamp.items()
    }
    rows = f"{kind.FORMAT}/{kind.VERSION}"
    header = {
        "format": FORMAT,
        "rows": rows,
        "stamp": {**stamp, **plan.agreed},
        "inputs": inputs.identity(),
    }
    header = json.loads(json.dumps(header))
    found, job = read_job(folder), folder / JOB
    if not found:
        if folder.is_dir() and any(place.name != JOB for place in folder.iterdir()):
            raise UserError(f"{folder}: holds other files, and no job of this program; give an empty folder")
        for name in ("claims", "work", "done"):
            (job / name).mkdir(parents=True, exist_ok=True)
        columns = plan.columns() if plan.columns is not None else None
        parts = max(1, min(plan.parts, len(inputs)))
        made = {**header, "count": len(inputs), "parts": parts, "form": plan.form, "columns": columns}
        create_whole(job / "job.json", json.dumps(made).encode())
        found = read_job(folder)
    _check_job(f"{folder}/{JOB}/job.json", found, header, plan)
    if not same_rows({"inputs": found["inputs"]}, {"inputs": header["inputs"]}):
        _check_parts(folder, found, inputs)
        found = {**found, "inputs": header["inputs"]}
        atomic_write(job / "job.json", json.dumps(found))
    return found


def _check_job(place: str, found: Mapping[str, Any], header: Mapping[str, Any], plan: JobPlan) -> None:
    if found.get("rows") != header["rows"]:
        raise UserError(f"{place}: the folder is of {found.get('rows')} rows; give another output")
    for name, ours in header["stamp"].items():
        theirs = found["stamp"].get(name, {})
        for key in {**ours, **theirs}:
            if theirs.get(key) != ours.get(key):
                raise UserError(
                    f"{place}: made with {key} {theirs.get(key)}, this run has {ours.get(key)}; "
                    "use the same settings, or give another output"
                )
    if found["form"] != plan.form:
        raise UserError(f"{place}: its parts are {found['form']}, this run's are to be {plan.form}")


def _check_parts(folder: Location, found: Mapping[str, Any], inputs: LazyInputs) -> None:
    """Of inputs that were written anew, a row was mended, say: UserError where a part that is done is of other
    rows than they have there now. Those that are not done look for themselves."""
    if found["count"] != len(inputs):
        raise UserError(
            f"{folder}: made from another input, or other rows of it: {found['count']:,}, and there are "
            f"{len(inputs):,}; give another output"
        )
    for part, rows in enumerate(split_rows(range(len(inputs)), found["parts"])):
        place = folder / part_name(part, found["parts"], found["form"])
        if not place.exists():
            continue
        with RowSource(str(place)) as written:
            for index in range(len(written)):
                where, row = written.json_row(index)
                given = inputs[rows.start + index]
                if _without_nulls({key: row.get(key) for key in given}) != _without_nulls(given):
                    number = rows.start + index + 1
                    raise UserError(f"{where}: made from another input (row {number:,}); give another output")


def check_job_models(folder: Location, kind: type[Row], fields: Mapping[str, Mapping[str, Any]]) -> None:
    """Before the first new row: UserError where the rows of a job are made by models with other files of the same
    name. fields: as of :meth:`thinkprm_jax.records.output.OrderedOutput.check_models`."""
    ours: dict[str, dict[str, str]] = {made_by: {} for made_by in kind.MADE_BY}
    for made_by, name, found in fingerprints_of(kind, fields):
        ours[made_by][name] = found
    place = folder / JOB / "models.json"
    if create_whole(place, json.dumps(ours).encode()):
        return
    theirs = json.loads(place.read_bytes())
    for made_by, made in ours.items():
        for name, value in made.items():
            there = theirs.get(made_by, {}).get(name)
            if there is not None and there != value:
                raise other_model(str(place), made_by, name, there, value)


def read_job(folder: Location) -> dict[str, Any]:
    """What the first process has written of the job in a folder; {} where there is none.

    Raises:
      UserError: it is of a version to come.
    """
    place = folder / JOB / "job.json"
    try:
        found = json.loads(place.read_bytes())
    except (OSError, UserError):
        return {}
    except ValueError as error:
        raise UserError(f"{place}: cannot be read as JSON; give another output") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{place}: this version of thinkprm_jax knows jobs of the format {FORMAT}")
    return found


def _without_nulls(value: Any) -> Any:
    """As tables have it: what is null is not there."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list | tuple) else value
