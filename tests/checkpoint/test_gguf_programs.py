"""GGUF files in whole programs and on several devices: what is done with a folder is done with a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import yaml
from gguf import GGMLQuantizationType as Kind
from peft import PeftModel

from support import gguf_files, oracle
from support.processes import finish, start
from thinkprm_jax import cli
from thinkprm_jax.checkpoint.huggingface import load_model, save_model
from thinkprm_jax.checkpoint.weights import find_model

pytestmark = pytest.mark.slow

PROBLEM = {"problem": "2 + 3?", "steps": ["2 + 3 = 5", "So 5."]}
TOKENS = oracle.prompt(24)[None]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quantised where a row is blocks of 32 numbers."""
    model = oracle.random_model("qwen2", 4, 2, tied=False, vocabulary=320)
    kinds = dict.fromkeys(("token_embd", "output", "attn_q", "attn_k", "ffn_gate", "ffn_up"), Kind.Q8_0)
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    stored = gguf_files.tensors_of(model, {**kinds, "attn_v": Kind.Q4_0, "attn_output": Kind.Q5_1})
    return gguf_files.write(path, model, stored, **{"qwen2.context_length": 4096})


@pytest.fixture(scope="module")
def folder(file: Path) -> Path:
    """The same weights as a Hugging Face folder."""
    save_model(*load_model(file), file.parent / "as_folder" / "model")
    return file.parent / "as_folder" / "model"


def run(*arguments: object) -> None:
    assert cli.main([*map(str, arguments)]) in (0, 1)  # 1: random weights are no verifier


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path: Path, *content: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def logits(path: Path) -> np.ndarray:
    return np.asarray(jax.jit(lambda model, tokens: model(tokens))(load_model(path)[0], TOKENS))


# Programs


@pytest.mark.parametrize("kind", ["thinkprm", "judge"])
def test_scores_are_those_of_the_folder(kind: str, file: Path, folder: Path, tmp_path: Path) -> None:
    given = write_rows(tmp_path / "in.jsonl", PROBLEM)
    verdicts = []
    for number, model in enumerate((file, folder)):
        out = tmp_path / f"{number}.jsonl"
        limits = ("--max-gen-tokens", 12, "--max-length", 2048, "--slots", 2)
        run("score", given, "--output", out, "--model", model, "--verifier", kind, *limits)
        [row] = rows(out)
        assert row["verifier"]["model"] == str(model)
        verdicts.append(row["verdict"])
    assert verdicts[0] == verdicts[1]


def test_a_search_with_one_file_as_generator_and_verifier(file: Path, folder: Path, tmp_path: Path) -> None:
    found = []
    for number, model in enumerate((file, folder)):
        out = tmp_path / f"out{number}"
        recipe = {
            "approach": "beam_search", "n": 4, "beam_width": 2, "num_iterations": 2, "step_separator": "e",
            "system_prompt": None, "dataset_name": "arithmetic", "num_samples": 2, "max_tokens": 16,
            "max_verification_length": 1024, "max_verification_tokens": 8, "slots": 4, "prm_slots": 4,
            "temperature": 1.0, "output_dir": str(out), "model_path": str(model), "prm_path": str(model),
        }  # fmt: skip
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
        run("search", tmp_path / "r.yaml")
        found.append([row["completions"] for row in rows(out / "completions.jsonl")])
    assert found[0] == found[1]
    assert any(any(completions) for completions in found[0])


def test_an_evaluation(file: Path, folder: Path, tmp_path: Path) -> None:
    content = [{"id": f"math-{n}", **PROBLEM, "label": n - 1, "final_answer_correct": n == 0} for n in (0, 1)]
    data = write_rows(tmp_path / "pb.jsonl", *content)
    details = []
    for number, model in enumerate((file, folder)):
        out = tmp_path / f"out{number}"
        limits = ("--max-gen-tokens", 12, "--max-length", 2048, "--slots", 2)
        where = ("--data", data, "--subset", "math", "--output-dir", out)
        run("evaluate", "processbench", "--model", model, *where, *limits)
        details.append([row["verdict"] for row in rows(out / "details.jsonl")])
    assert details[0] == details[1]
    assert len(details[0]) == 2


def test_lora_from_a_file_goes_on_and_is_exported(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = {
        "output": str(out), "steps": 3, "model": {"pretrained": str(file), "dtype": "float32"},
        "lora": {"rank": 4, "alpha": 8.0, "targets": ["q_proj", "v_proj", "down_proj"]},
        "data": {"train": {"arithmetic": {"examples": 30, "seed": 1}}, "buckets": [2048], "rows": 2},
        "optimizer": {"name": "adamw", "learning_rate": 0.05, "schedule": "constant", "warmup_steps": 0},
        "checkpoint": {"every_steps": 1}, "log_every": 1,
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert cli.main(["train", str(tmp_path / "r.yaml")]) == 0
    whole = [row["loss"] for row in rows(out / "metrics.jsonl") if "loss" in row]
    shutil.rmtree(out / "checkpoints" / "3")
    assert cli.main(["train", str(tmp_path / "r.yaml")]) == 0
    assert [row["loss"] for row in rows(out / "metrics.jsonl") if "loss" in row] == whole
    assert [row["step"] for row in rows(out / "metrics.jsonl") if "loss" in row] == [1, 2, 3]

    assert cli.main(["export", str(out), str(tmp_path / "merged")]) == 0
    assert cli.main(["export", str(out), str(tmp_path / "adapter"), "--adapter"]) == 0
    assert find_model(tmp_path / "adapter").base == file  # the adapter stands on the file
    expected = logits(tmp_path / "merged")
    assert np.abs(expected - logits(file)).max() > 0.1
    np.testing.assert_allclose(logits(tmp_path / "adapter"), expected, atol=1e-4)

    base = oracle.transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    np.testing.assert_allclose(oracle.logits(theirs, TOKENS), expected, atol=1e-4 * np.abs(expected).max())


# Devices

MESHES = """
import sys, numpy as np, jax
from jax.sharding import PartitionSpec as P
from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.distributed.mesh import make_mesh
file, tokens, out = sys.argv[1:]
tokens = np.load(tokens)
for number, sizes in enumerate([(1, 1, 8), (1, 8, 1), (2, 2, 2)]):
    mesh = make_mesh(*sizes)
    model, _ = load_model(file, mesh=mesh)
    kernel = model.layers[1].mlp.gate.kernel[...]
    assert kernel.sharding.shard_shape(kernel.shape) == (kernel.shape[0] // sizes[1], kernel.shape[1] // sizes[2])
    placed = jax.device_put(tokens, jax.NamedSharding(mesh, P(("data", "fsdp"))))
    with jax.set_mesh(mesh):
        np.save(f"{out}/{number}.npy", jax.jit(lambda model, tokens: model(tokens))(model, placed))
"""
BLOCKS_OF_256 = {
    "token_embd": Kind.Q6_K, "attn_q": Kind.Q4_K, "attn_k": Kind.Q5_K, "attn_v": Kind.Q8_0, "ffn_gate": Kind.Q3_K,
    "ffn_up": Kind.Q2_K, "attn_output": Kind.BF16, "ffn_down": Kind.F16,
}  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_meshes_of_eight_devices(family: str, tmp_path: Path) -> None:
    """Devices hold pieces of blocks; Llama's rows of queries and keys are put back in order piece by piece."""
    model = oracle.random_model(family, 32, 8, tied=True, vocabulary=320)  # 256 wide
    stored = gguf_files.tensors_of(model, BLOCKS_OF_256)
    stored = {name: (a.view(np.uint8) if kind == Kind.BF16 else a, kind) for name, (a, kind) in stored.items()}
    file = gguf_files.write(tmp_path / "model.gguf", model, stored)
    tokens = np.stack([oracle.prompt(12, seed) for seed in range(8)])
    np.save(tmp_path / "tokens.npy", tokens)
    finish([start(MESHES, file, tmp_path / "tokens.npy", tmp_path, devices=8)])
    expected = jax.jit(lambda model, tokens: model(tokens))(load_model(file)[0], tokens)
    for number in range(3):
        found = np.load(tmp_path / f"{number}.npy")
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
