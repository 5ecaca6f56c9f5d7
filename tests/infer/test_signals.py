"""Ctrl-C and SIGTERM while a model that is always computing computes: one line, the status, whole files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from flax import nnx

from support import tiny_model
from support.processes import ROOT, environment
from thinkprm_jax.checkpoint.huggingface import save_model
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder

PROBLEM = {"problem": "2 + 3 + 4?", "steps": ["2 + 3 = 5", "5 + 4 = 9"]}
TRIES = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of 55 million random weights, inputs, and a cache of compiled programs."""
    folder = tmp_path_factory.mktemp("signals")
    tokenizer = tiny_model.load_tokenizer()
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=768,
        intermediate_size=2048,
        num_layers=8,
        num_heads=12,
        num_kv_heads=4,
        head_dim=64,
        tie_embeddings=True,
        eos_token_id=tokenizer.eos_id,
    )
    save_model(Decoder(config, rngs=nnx.Rngs(0)), tokenizer, folder / "model")
    (folder / "in.jsonl").write_text("".join(json.dumps({**PROBLEM, "id": i}) + "\n" for i in range(200)))
    teacher = {"model": "model", "prompt": "verification", "chains": 2, "temperature": 1.0, "max_tokens": 400}
    source = {"arithmetic": {"examples": 100, "seed": 5, "split": "unseen"}}
    recipe = {"output": "run", "source": source, "teacher": {**teacher, "max_length": 768, "slots": 16}}
    (folder / "collect.yaml").write_text(yaml.safe_dump(recipe))
    return folder


COMMANDS = {
    "score": [
        "in.jsonl",
        "--output",
        "out.jsonl",
        "--model",
        "model",
        "--n",
        "2",
        "--max-length",
        "768",
        "--quiet",
    ],
    "collect": ["collect.yaml"],
}


@pytest.mark.slow
@pytest.mark.parametrize("program", ["score", "collect"])
def test_a_signal_while_the_device_computes(place: Path, program: str) -> None:
    grows = place / ("out.jsonl.waiting" if program == "score" else "run/generations.jsonl.waiting")
    for attempt in range(TRIES):
        process = subprocess.Popen(
            [sys.executable, "-m", "thinkprm_jax.cli", program, *COMMANDS[program]],
            cwd=place,
            env=environment(THINKPRM_JAX_CACHE=str(place / "cache"), PYTHONPATH=str(ROOT)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 120
        while not grows.exists() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        time.sleep(3.0 + attempt)  # it loads, compiles, then computes
        number = signal.SIGTERM if attempt % 3 == 2 else signal.SIGINT
        process.send_signal(number)
        if attempt % 2:  # a signal that comes twice
            time.sleep(0.1)
            process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 128 + number, said
        assert said.splitlines()[-1] == f"thinkprm {program}: stopped"
        assert "Traceback" not in said
        assert said.count("stopped") == 1
    for path in place.rglob("*.jsonl"):
        assert all(json.loads(line) for line in path.read_bytes().splitlines())
