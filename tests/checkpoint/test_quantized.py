"""Checkpoints in eight bits: what is loaded, its memory, new weights, programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from support import oracle
from support.processes import finish, start
from thinkprm_jax.checkpoint.huggingface import load_model, save_model
from thinkprm_jax.checkpoint.quantized import quantize_decoder
from thinkprm_jax.cli import main as thinkprm
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.lora import LoraSpec
from thinkprm_jax.model.quantization import quantize
from thinkprm_jax.sampler import Sampler


def parameters(model: Decoder) -> dict[str, np.ndarray]:
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    theirs = oracle.random_model("qwen2", 8, 2, tied=request.param)
    return oracle.save(theirs, tmp_path_factory.mktemp("quantized"))


def test_every_matrix_is_quantised_by_its_outputs_and_the_rest_is_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinkprm_jax.checkpoint.quantized._PART_BYTES", 4_000)  # several parts a matrix
    small, plain = parameters(load_model(folder, quantize="int8")[0]), parameters(load_model(folder)[0])
    scales = {name for name in small if name.endswith("_scale")}
    assert small.keys() - scales == plain.keys()
    for name, value in plain.items():
        if f"{name}_scale" not in scales:
            np.testing.assert_array_equal(small[name], value)
            continue
        whole, scale = quantize(value, 1 if name == "embed.embedding" else 0)
        np.testing.assert_array_equal(small[name], whole)
        np.testing.assert_array_equal(small[f"{name}_scale"], scale)
    assert all(small[name].dtype == np.int8 for name in plain if name.endswith((".embedding", ".kernel")))


def test_a_decoder_in_memory_becomes_what_its_checkpoint_becomes(folder: Path) -> None:
    ours = parameters(quantize_decoder(load_model(folder)[0]))
    for name, value in parameters(load_model(folder, quantize="int8")[0]).items():
        np.testing.assert_allclose(ours[name], value, atol=1 if value.dtype == np.int8 else 1e-9)


def test_new_weights_of_floats_are_quantised(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(folder, quantize="int8")
    other, _ = load_model(folder)
    for _, leaf in nnx.to_flat_state(nnx.state(other, nnx.Param)):
        leaf[...] = leaf[...] * 1.5
    expected = parameters(quantize_decoder(other))
    save_model(other, tokenizer, tmp_path / "other")
    for given in (nnx.state(other, nnx.Param), tmp_path / "other"):
        model, _ = load_model(folder, quantize="int8")
        Sampler(model, tokenizer, slots=2, max_length=64).update_weights(given)
        for name, value in parameters(model).items():
            np.testing.assert_allclose(value, expected[name], atol=1 if value.dtype == np.int8 else 1e-9)


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(folder, quantize="int8")
    with pytest.raises(UserError, match="int8 already"):
        quantize_decoder(model)
    adapted = Decoder(
        model.config, rngs=nnx.Rngs(0), lora=LoraSpec(rank=2, alpha=4.0, targets=("down_proj",), dropout=0.0)
    )
    with pytest.raises(UserError, match="merge them first"):
        quantize_decoder(adapted)
    with pytest.raises(UserError, match="cannot be saved"):
        save_model(model, tokenizer, tmp_path / "copy")
    with pytest.raises(UserError, match="quantize is 'int3'"):
        load_model(folder, quantize="int3")  # type: ignore[arg-type]


def test_a_verifier_says_the_same_and_rows_say_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bundled one is sure of what it says."""
    given = tmp_path / "given.jsonl"
    rows = [
        {"problem": "14 + 25 + 31?", "steps": ["14 + 25 = 39.", "39 + 31 = 70."]},
        {"problem": "14 + 25 + 31?", "steps": ["14 + 25 = 39.", "39 + 31 = 71."]},
    ]
    given.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = []
    for options in ([], ["--quantize", "int8"]):
        output = tmp_path / f"verdicts{len(options)}.jsonl"
        assert thinkprm(["score", str(given), "--output", str(output), "--quiet", *options]) == 0
        found.append([json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()])
    plain, small = found
    assert [row["verdict"]["step_labels"] for row in small] == [[1, 1], [1, 0]]
    assert [row["verifier"].get("quantize") for row in (*plain, *small)] == [None, None, "int8", "int8"]
    capsys.readouterr()


MESHES = """
import sys, numpy as np, jax
from flax import nnx
from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.distributed.mesh import make_mesh
def parameters(model):
    return {path: np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}
alone = parameters(load_model(sys.argv[1], quantize="int8")[0])
for data, fsdp, tensor in [(1, 1, 4), (1, 4, 1), (2, 1, 2)]:
    model, _ = load_model(sys.argv[1], mesh=make_mesh(data, fsdp, tensor), quantize="int8")
    for path, value in parameters(model).items():
        np.testing.assert_array_equal(value, alone[path])
    down = model.layers[0].mlp.down
    assert down.kernel[...].sharding.shard_shape((72, 64)) == (72 // tensor, 64 // fsdp)
print("equal")
"""


@pytest.mark.slow
def test_meshes_hold_the_same(folder: Path) -> None:
    [said] = finish([start(MESHES, folder, devices=4)])
    assert "equal" in said
