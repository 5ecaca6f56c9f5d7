"""Folders whose weights are packed: what they stand for, and what is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from support import oracle, packed_weights
from thinkprm_jax.checkpoint.fingerprint import fingerprint
from thinkprm_jax.checkpoint.formats.registry import open_source
from thinkprm_jax.checkpoint.huggingface import load_model, read_config
from thinkprm_jax.checkpoint.weights import find_model
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.errors import UserError

GROUPS = {"group_size": packed_weights.GROUP}
FP8 = {"quant_method": "fp8"}


def compressed(form: str, bits: int, **weights: Any) -> dict[str, Any]:
    group = {"weights": {"num_bits": bits, **weights}, "targets": ["Linear"]}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}}


CASES: dict[str, tuple[packed_weights.Packer, dict[str, Any]]] = {
    "awq": (
        packed_weights.pack_awq,
        {"quant_method": "awq", "bits": 4, "zero_point": True, "version": "gemm", **GROUPS},
    ),
    "gptq-4": (packed_weights.gptq(4, False), {"quant_method": "gptq", "bits": 4, "sym": True, **GROUPS}),
    "gptq-4-act": (packed_weights.gptq(4, True), {"quant_method": "gptq", "bits": 4, "desc_act": True, **GROUPS}),
    "gptq-8": (packed_weights.gptq(8, False), {"quant_method": "gptq", "bits": 8, **GROUPS}),
    "gptq-2": (packed_weights.gptq(2, False), {"quant_method": "gptq", "bits": 2, **GROUPS}),
    "gptq-v2": (
        packed_weights.gptq(4, True, version=2),
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2", **GROUPS},
    ),
    "fp8-block": (packed_weights.fp8("block"), {**FP8, "weight_block_size": [8, 16]}),
    "fp8-tensor": (packed_weights.fp8("tensor"), FP8),
    "fbgemm": (packed_weights.fp8("channel"), {"quant_method": "fbgemm_fp8"}),
    "ct-fp8": (packed_weights.fp8("channel"), compressed("float-quantized", 8, type="float")),
    "ct-int8": (packed_weights.pack_int8, compressed("int-quantized", 8)),
    "ct-4": (packed_weights.packed_words(4, False), compressed("pack-quantized", 4, **GROUPS)),
    "ct-4-asymmetric": (packed_weights.packed_words(4, True), compressed("pack-quantized", 4, **GROUPS)),
    "ct-8": (packed_weights.packed_words(8, False), compressed("pack-quantized", 8, **GROUPS)),
    "nf4": (packed_weights.nf4(False), {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "nf4-nested": (packed_weights.nf4(True), {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "llm-int8": (packed_weights.pack_llm_int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
}


@pytest.fixture(scope="module")
def theirs() -> transformers.PreTrainedModel:
    return oracle.random_model("qwen2", 4, 2, tied=False)


@pytest.fixture
def plain(theirs: transformers.PreTrainedModel, tmp_path: Path) -> Path:
    return oracle.save(theirs, tmp_path / "plain")


def pack(case: str, plain: Path) -> Path:
    return packed_weights.pack_folder(plain, plain.with_name(case), *CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_the_published_arithmetic(case: str, plain: Path) -> None:
    ours, dense = load_model(pack(case, plain))[0], load_model(plain)[0]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=3e-7), ours, dense)


@pytest.mark.parametrize("case", CASES)
def test_any_piece_in_any_orientation(case: str, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(pack(case, plain))
    name = "model.layers.1.mlp.down_proj.weight"  # 32 x 72
    dense = load_file(plain / "model.safetensors")[name].numpy()
    monkeypatch.setattr("thinkprm_jax.checkpoint.pieces._BLOCK_BYTES", 1500)
    for rows, columns in (
        (slice(0, 32), slice(0, 72)),
        (slice(8, 24), slice(18, 54)),
        (slice(3, 4), slice(11, 70)),
    ):
        with ThreadPoolExecutor(2) as pool:
            piece = source.read(name, (rows, columns), False, np.dtype(np.float32), pool)
            turned = source.read(name, (columns, rows), True, np.dtype(np.float32), pool)
        np.testing.assert_allclose(piece, dense[rows, columns], rtol=3e-7)
        np.testing.assert_array_equal(turned, piece.T)


TOOLS = Path(__file__).parent / "packed_by_tools"


@pytest.mark.parametrize("tool", ["autoawq", "autogptq", "gptqmodel"])
def test_what_the_tools_themselves_packed(tool: str, tmp_path: Path) -> None:
    """Bit for bit what their own code makes of it, in float16."""
    with safe_open(TOOLS / f"{tool}.safetensors", "numpy") as file:
        cases = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for case, settings in cases.items():
        parts = {part: array for name, array in tensors.items() if (part := name.removeprefix(f"{case}/")) != name}
        expected = parts.pop("expected")
        folder = tmp_path / case
        folder.mkdir()
        safetensors.numpy.save_file(
            {f"m.{part}": array for part, array in parts.items()}, folder / "model.safetensors"
        )
        (folder / "config.json").write_text(json.dumps({"quantization_config": json.loads(settings)}))
        with ThreadPoolExecutor(1) as pool:
            everything = (slice(None), slice(None))
            found = open_source(folder).read("m.weight", everything, False, np.dtype(np.float32), pool)
        np.testing.assert_array_equal(found.astype(np.float16), expected, err_msg=case)


def test_they_go_to_a_mesh_in_the_asked_dtype(plain: Path) -> None:
    mesh = make_mesh(1, 1, 1)
    packed, dense = load_model(pack("gptq-4-act", plain), "bfloat16", mesh)[0], load_model(plain, "bfloat16")[0]
    kernel = packed.layers[0].mlp.up.kernel[...]
    assert kernel.dtype == jnp.bfloat16
    assert kernel.sharding.mesh == mesh
    jax.tree.map(np.testing.assert_array_equal, packed, dense)


def test_transformers_unpacks_fp8_to_the_same(plain: Path) -> None:
    packer, settings = packed_weights.fp8("block", (8, 8)), {**FP8, "weight_block_size": [8, 8]}
    folder = packed_weights.pack_folder(plain, plain.with_name("fp8"), packer, {**settings, "dequantize": True})
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = oracle.prompt(30)[None]
    ours = load_model(folder)[0](jnp.asarray(tokens))
    expected = oracle.logits(model, tokens)
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


def test_biases_of_zeros_that_tools_add(plain: Path) -> None:
    folder = pack("gptq-4", plain)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.bias"] = torch.zeros(72)
    save_file(tensors, folder / "model.safetensors")
    load_model(folder)
    tensors["model.layers.0.mlp.up_proj.bias"] = torch.ones(72)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"unexpected: model\.layers\.0\.mlp\.up_proj\.bias"):
        load_model(folder)


def test_the_fingerprint_is_of_what_is_stored(plain: Path) -> None:
    assert fingerprint(find_model(pack("awq", plain))) != fingerprint(find_model(plain))


def test_settings_of_older_folders_stand_in_a_file_of_their_own(plain: Path) -> None:
    folder = pack("gptq-4", plain)
    config = json.loads((folder / "config.json").read_text())
    settings = config.pop("quantization_config")
    del settings["quant_method"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "quantize_config.json").write_text(json.dumps(settings))
    load_model(folder)


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"quant_method": "aqlm"},
            "quant_method 'aqlm' is not supported .*; take the model's plain weights, or a GGUF",
        ),
        ({"quant_method": None}, "quant_method None is not supported"),
        ({"quant_method": "awq", "version": "GEMV"}, "AWQ version 'gemv' is not supported"),
        ({"quant_method": "awq", "bits": 3}, "AWQ of 3 bits"),
        ({"quant_method": "gptq", "bits": 3}, r"GPTQ of 3 bits is not supported \(we have: 2, 4, 8\)"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format 'marlin'"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"+:x": {"bits": 8}}}, "other bits for some layers"),
        ({"quant_method": "gptq", "bits": 4, "group_size": "all"}, "group_size is 'all'"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size is"),
        (compressed("marlin-24", 4), "format 'marlin-24' is not supported"),
        (compressed("pack-quantized", 3), "3 packed bits are not supported"),
        ("awq", "is no object"),
    ],
)
def test_ways_that_we_do_not_have(plain: Path, settings: Any, message: str) -> None:
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    with pytest.raises(UserError, match=message) as error:
        read_config(plain)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("case", "part", "change", "message"),
    [
        ("awq", "scales", None, r"up_proj\.scales is missing"),
        ("awq", "qweight", torch.zeros(8, 8), r"up_proj\.qweight is F32, not I32"),
        (
            "gptq-4",
            "qzeros",
            torch.zeros(1, 1, dtype=torch.int32),
            r"up_proj\.qzeros is \[1, 1\] instead of \[4, 9\]",
        ),
        ("gptq-4-act", "g_idx", torch.full((32,), 99, dtype=torch.int32), "names groups beyond its 4"),
        ("fp8-tensor", "weight_scale", None, r"up_proj\.weight is F8_E4M3 and has no weight_scale"),
        (
            "fp8-block",
            "weight_scale_inv",
            torch.zeros(3, 3),
            r"is \[3, 3\], which does not fit a weight of \[72, 32\]",
        ),
        ("ct-4", "weight_shape", torch.tensor([1, 2]), "does not hold the 1 x 2"),
        ("ct-4", "weight_g_idx", torch.full((32,), 99, dtype=torch.int32), "names groups beyond its 4"),
        ("nf4", "weight.quant_state.bitsandbytes__nf4", torch.zeros(4, dtype=torch.uint8), "cannot be read"),
        ("nf4", "weight.absmax", None, r"weight\.absmax is missing"),
    ],
)
def test_parts_that_do_not_fit(
    plain: Path, case: str, part: str, change: torch.Tensor | None, message: str
) -> None:
    folder = pack(case, plain)
    tensors = load_file(folder / "model.safetensors")
    name = f"model.layers.0.mlp.up_proj.{part}"
    tensors.pop(name, None)
    if change is not None:
        tensors[name] = change
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=message) as error:
        load_model(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", ["awq", "gptq-4", "fp8-block", "ct-4", "nf4"])
def test_plain_weights_under_a_packed_configuration_are_refused_by_name(case: str, plain: Path) -> None:
    method = CASES[case][1]["quant_method"]
    folder = pack(case, plain)
    tensors, dense = load_file(folder / "model.safetensors"), load_file(plain / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    kept = {key: value for key, value in tensors.items() if not key.startswith(f"{name}.")}
    for content in (dense, {**kept, f"{name}.weight": dense[f"{name}.weight"]}):
        save_file(content, folder / "model.safetensors", {"format": "pt"})
        first = "model.layers.0.mlp.down_proj.weight" if content is dense else f"{name}.weight"
        with pytest.raises(UserError, match=rf"quantization_config says {method}, and {first} is not packed"):
            open_source(folder)


def test_what_a_configuration_leaves_out_may_be_plain(plain: Path) -> None:
    folder = pack("awq", plain)
    tensors, dense = load_file(folder / "model.safetensors"), load_file(plain / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    kept = {key: value for key, value in tensors.items() if not key.startswith(f"{name}.")}
    save_file({**kept, f"{name}.weight": dense[f"{name}.weight"]}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["modules_to_not_convert"] = ["down_proj"]
    (folder / "config.json").write_text(json.dumps(config))
    assert f"{name}.weight" in open_source(folder).tensors
