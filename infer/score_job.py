"""`thinkprm score` into a folder of parts, which any number of processes write."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.infer.engines import choose_engine, start_engine
from thinkprm_jax.infer.job_options import FolderJob
from thinkprm_jax.infer.score_report import Report, count_row
from thinkprm_jax.infer.verifier_options import choose_verifier
from thinkprm_jax.records.columns import column_of, columns_of_record, unite_columns
from thinkprm_jax.records.inputs import SolutionFile
from thinkprm_jax.records.job import MISSING, JobPlan
from thinkprm_jax.records.output import LazyInputs
from thinkprm_jax.records.schema import FINGERPRINTS, FORMAT_KEY
from thinkprm_jax.records.sharded_output import ShardedOutput
from thinkprm_jax.records.verdicts import VerdictRecord, VerdictRow

_NAMED = 3  # parts with a bad row that are named one by one


def score_folder(
    rows: SolutionFile, options: argparse.Namespace, job: FolderJob, score: Callable[..., None]
) -> int:
    """Judges the parts that are free, until all are done. ``score`` judges what an output misses.

    Returns: the exit status.
    """
    from thinkprm_jax.verifier.loading import with_fingerprints
    from thinkprm_jax.verifier.registry import current_stamp

    choose_engine(options)
    settings, engine = choose_verifier(options), None
    plan = JobPlan(
        {"verifier": settings.stamp},
        job.parts_of(len(rows)),
        job.form,
        (lambda: verdict_columns(rows, settings.stamp)) if job.form == "parquet" else None,
        current_stamp,
        rows.check,
        job.process,
        job.lease,
    )
    given = LazyInputs(len(rows), lambda index: rows[index].row, rows.identity)
    with (
        contextlib.ExitStack() as stack,
        ShardedOutput(job.folder, VerdictRow, given, plan, count_row) as output,
    ):
        state = output.state()
        report = Report(len(rows), source=str(job.folder), quiet=options.quiet)
        report.share(output.shown)
        if state.rows:
            report.say(f"{job.folder}: {state.rows:,} of {len(rows):,} rows are judged already")
        while output.wait(others=job.waits, say=lambda held: report.say(f"{job.folder}: {held.waiting_for}")):
            if engine is None:
                settings = with_fingerprints(settings)
                output.check_models(verifier=settings.stamp)
                engine = stack.enter_context(start_engine(options, settings, report))
            score(engine, rows, output, report)
        state = output.state()
        report.begin(output.counts)
        report.summary()
    if output.bad:
        first = [str(error) for _, error in sorted(output.bad.items())]
        for line in first[1:_NAMED]:
            print(f"thinkprm score: error: {line}", file=sys.stderr)
        raise UserError(f"{first[0]} (in {len(first)} of {output.parts} parts; what the others hold stays)")
    if state.parts < output.parts:
        report.say(
            f"{job.folder}: {output.parts - state.parts} of {output.parts} parts are missing: {state.waiting_for}"
        )
        return MISSING
    return 1 if report.failed else 0


def verdict_columns(rows: SolutionFile, stamp: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of Parquet; all rows are looked at for those of the input."""
    columns: dict[str, Any] = {}
    kinds = set()
    for index in range(len(rows)):
        place, row = rows.placed(index)
        kinds.add(row.many)
        found = {name: column_of(value, place, name) for name, value in row.row.items()}
        columns = unite_columns(columns, found, place)
    verdict = columns_of_record(VerdictRecord)
    judged = {"verdicts" if many else "verdict": ["list", verdict] if many else verdict for many in sorted(kinds)}
    verifier = {**column_of(stamp, "the settings", "verifier"), **dict.fromkeys(FINGERPRINTS, "text")}
    return {**columns, **judged, "verifier": verifier, FORMAT_KEY: "text"}
