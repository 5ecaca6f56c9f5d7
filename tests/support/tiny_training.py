"""A tiny training run (one layer of width 16, the synthetic task), as a recipe and as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from support import processes
from support.small_batches import make_batch
from thinkprm_jax.data.batches import Batch, TokenisedExample

STEPS = 36
SAVE_EVERY = 4
RECIPE = {
    "steps": STEPS,
    "model": {
        "tokenizer": "mini",
        "dtype": "float32",
        "scratch": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_layers": 1,
            "num_heads": 2,
            "num_kv_heads": 1,
        },
    },
    "data": {
        "train": {"arithmetic": {"examples": 60, "seed": 1}},  # several epochs, each in its own order
        "buckets": [192, 384],
        "rows": 2,
    },
    "optimizer": {"name": "muon", "learning_rate": 0.01, "adam_learning_rate": 0.004, "schedule": "linear"},
    "log_every": 1,
    "checkpoint": {"every_steps": SAVE_EVERY, "every_seconds": None},
}


def write_recipe(folder: Path, **changes: object) -> Path:
    path = folder / "recipe_in.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "output": str(folder / "run"), **changes}), encoding="utf-8")
    return path


def start(recipe: Path, cache: Path, *overrides: str) -> subprocess.Popen[str]:
    """`python train/sft.py RECIPE ...`; `cache` keeps compiled programs from one start to the next."""
    environment = processes.environment(THINKPRM_JAX_CACHE=str(cache))
    command = [sys.executable, "train/sft.py", str(recipe), *overrides]
    return subprocess.Popen(command, cwd=processes.ROOT, env=environment, text=True, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> str:
    """What a run that succeeds says on stderr."""
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


def metrics(run: Path) -> list[dict]:
    """The whole lines of metrics.jsonl so far."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def random_batch(lengths: list[int], prompts: list[int], length: int, vocabulary: int, seed: int = 0) -> Batch:
    """Rows of random ids, one of each of `lengths`, with so many prompt tokens that are no targets; then an
    empty row."""
    rng = np.random.default_rng(seed)
    examples = []
    for size, prompt in zip(lengths, prompts, strict=True):
        weights = np.ones(size, np.float32)
        weights[:prompt] = 0.0
        examples.append(TokenisedExample(rng.integers(0, vocabulary, size).astype(np.int32), weights))
    return make_batch(examples, len(lengths) + 1, length)


class RandomExamples:
    """A dataset of random ids, one example for each of `lengths`; the first token is no target."""

    fingerprint = "random"

    def __init__(self, lengths: list[int], vocabulary: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._ids = [rng.integers(0, vocabulary, length).astype(np.int32) for length in lengths]

    def __len__(self) -> int:
        return len(self._ids)

    def length(self, index: int) -> int:
        return len(self._ids[index]) - 1

    def targets(self, index: int) -> int:
        return len(self._ids[index]) - 1

    def __getitem__(self, index: int) -> TokenisedExample:
        return TokenisedExample(self._ids[index], np.ones(len(self._ids[index]), np.float32))
