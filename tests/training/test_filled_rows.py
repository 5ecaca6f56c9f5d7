"""Recipes whose rows no number of devices divides: the same batches and figures on 1, 2, 4 and 8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support import processes, tiny_training
from support.train_server import TrainServer

pytestmark = pytest.mark.slow

MINI_VERIFIER = processes.ROOT / "configs" / "train" / "mini_verifier.yaml"
# The recipe that ships, with a smaller model and shorter batches; 5 and 2 rows of two lengths.
SMALLER = [
    *(f"model.scratch.{name}=16" for name in ("hidden_size", "intermediate_size")),
    *(f"model.scratch.{name}=1" for name in ("num_layers", "num_heads", "num_kv_heads")),
    "model.dtype=float32",
    "data.buckets=[192,384]",
    "data.tokens=1000",
    "data.evaluation.arithmetic.examples=9",
    "log_every=1",
]
SAME = ("loss", "gradient_norm", "learning_rate", "held_out_loss", "held_out_token_accuracy", "left_out")
RATES = ("tokens_per_second", "target_tokens_per_second")


def figures(server: TrainServer, folder: Path, devices: int, *overrides: str) -> tuple:
    """What must be equal of every line; the tokens of every step; what the run said."""
    run = folder / f"on_{devices}"
    said = server.start(MINI_VERIFIER, f"output={run}", *SMALLER, *overrides, devices=devices).finish()
    lines = tiny_training.metrics(run)
    same = np.array([[line.get(name, -1.0) for name in SAME] for line in lines])
    steps = [line for line in lines if "step_seconds" in line]
    tokens = np.array([[line[name] * line["step_seconds"] for name in RATES] for line in steps])
    return same, tokens, said


@pytest.mark.parametrize(
    ("overrides", "numbers"),
    [
        (["steps=6", "evaluate_every=6"], [2, 4, 8]),
        # Parts of one row, which four devices cannot share.
        (["steps=3", "data.buckets=[384]", "data.tokens=null", "data.rows=6", "micro_batches=6"], [4]),
    ],
)
def test_any_number_of_devices_sees_the_same_rows(
    server: TrainServer, tmp_path: Path, overrides: list[str], numbers: list[int]
) -> None:
    expected, tokens, said = figures(server, tmp_path, 1, *overrides)
    assert "empty rows" not in said
    for devices in numbers:
        found, tokens_there, said = figures(server, tmp_path, devices, *overrides)
        assert "empty rows, by bucket: " in said
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(tokens_there, tokens, rtol=1e-4)  # seven digits are written
        assert np.array_equal(tokens_there.round(), tokens.round())
