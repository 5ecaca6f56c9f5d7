"""What a run says where there is no terminal."""

from __future__ import annotations

import pytest

from thinkprm_jax.progress import TrainingProgress


def test_plain_lines(capsys: pytest.CaptureFixture) -> None:
    with TrainingProgress(40, 10, plain_seconds=0.0) as report:
        report.update(20, 1.25, 12345.0)
    assert capsys.readouterr().err == "step 20/40  loss 1.2500  12,345 tokens/s  ETA 0:00:00\n"
    late = TrainingProgress(40, 10, plain_seconds=1e9)
    late.update(39, 1.0, 1.0)
    late.update(40, 1.0, 1.0)  # the last one is always said
    assert capsys.readouterr().err.startswith("step 40/40  loss")
    quiet = TrainingProgress(40, 10, plain_seconds=0.0, quiet=True)
    quiet.update(40, 1.0, 1.0)
    quiet.say("nothing")
    assert capsys.readouterr().err == ""
