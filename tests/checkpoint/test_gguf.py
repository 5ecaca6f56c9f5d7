"""GGUF files: weights, configuration, what is refused."""

from __future__ import annotations

import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType as Kind

from support import gguf_files, oracle
from thinkprm_jax.checkpoint.fingerprint import fingerprint, fingerprints
from thinkprm_jax.checkpoint.formats.gguf import GgufTensors
from thinkprm_jax.checkpoint.formats.gguf_config import read_gguf_config
from thinkprm_jax.checkpoint.huggingface import load_model, read_config, save_model
from thinkprm_jax.checkpoint.weights import find_model
from thinkprm_jax.errors import UserError
from thinkprm_jax.export.base import check_base, keep_base, read_base
from thinkprm_jax.gguf_header import read_header
from thinkprm_jax.records.schema import FINGERPRINTS
from thinkprm_jax.training.config import ModelSource
from thinkprm_jax.training.plan import model_shapes
from thinkprm_jax.verifier.folder import read_kind
from thinkprm_jax.verifier.registry import verifier_settings

KINDS = (
    Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q2_K, Kind.Q3_K,
    Kind.Q4_K, Kind.Q5_K, Kind.Q6_K,
)  # fmt: skip


@functools.cache
def model_of(family: str, tied: bool = False, **keys: Any) -> transformers.PreTrainedModel:
    return oracle.random_model(family, 4, 2, tied=tied, vocabulary=320, **keys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return gguf_files.write(tmp_path / "model.gguf", model_of("qwen2"))


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2)


def logits_of(path: Path, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(load_model(path)[0](jnp.asarray(tokens)))


# Weights


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_logits_are_those_of_the_model_that_was_converted(family: str, tied: bool, tmp_path: Path) -> None:
    model = model_of(family, tied)
    path = gguf_files.write(tmp_path / "model.gguf", model)
    tokens = oracle.prompt(40)[None]
    np.testing.assert_allclose(logits_of(path, tokens), oracle.logits(model, tokens), atol=1e-4)
    assert read_config(path).tie_embeddings is tied


def test_quantised_logits_are_those_of_transformers(tmp_path: Path) -> None:
    """All kinds in one file, and the rows of query and key put back in order."""
    model = oracle.random_model("llama", 32, 8, tied=False, vocabulary=320)  # 256 wide: a block of the K kinds
    model.config.intermediate_size = 72
    kinds = {
        "token_embd": Kind.Q6_K, "output": Kind.F16, "attn_q": Kind.Q4_K, "attn_k": Kind.Q5_K, "attn_v": Kind.Q8_0,
        "attn_output": Kind.Q3_K, "ffn_gate": Kind.Q2_K, "ffn_up": Kind.Q5_1,
    }  # fmt: skip
    path = gguf_files.write(tmp_path / "model.gguf", model, gguf_files.tensors_of(model, kinds))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    tokens = oracle.prompt(40)[None]
    expected = oracle.logits(theirs.eval(), tokens)
    np.testing.assert_allclose(logits_of(path, tokens), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_any_piece_of_any_kind(kind: Kind, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    rng = np.random.default_rng(0)
    stored = gguf_files.quantise(rng.standard_normal((24, 512)).astype(np.float32), kind)
    stored = stored.view(np.uint8) if kind == Kind.BF16 else stored
    path = gguf_files.write_raw(tmp_path / "t.gguf", "qwen2", {}, {"blk.0.ffn_up.weight": (stored, kind)})
    source = GgufTensors(path)
    name = "model.layers.0.mlp.up_proj.weight"
    whole = gguf.dequantize(stored, kind).reshape(24, 512)
    for rows, columns in ((slice(None), slice(None)), (slice(5, 17), slice(None)), (slice(3, 4), slice(100, 401))):
        piece = source.read(name, (rows, columns), False, np.dtype(np.float32), pool)
        np.testing.assert_array_equal(piece, whole[rows, columns])
        turned = source.read(name, (columns, rows), True, jnp.dtype("bfloat16"), pool)
        np.testing.assert_array_equal(turned, whole[rows, columns].T.astype(jnp.bfloat16))


def test_blocks_of_rows_keep_the_order_of_llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gguf_files.write(tmp_path / "model.gguf", model_of("llama"))
    tokens = oracle.prompt(20)[None]
    whole = logits_of(path, tokens)
    monkeypatch.setattr("thinkprm_jax.checkpoint.pieces._BLOCK_BYTES", 1000)
    np.testing.assert_array_equal(logits_of(path, tokens), whole)


def test_several_parts_are_one_model(file: Path, tmp_path: Path) -> None:
    stored = gguf_files.tensors_of(model_of("qwen2"))
    names = [tmp_path / "parts" / f"model-{number:05d}-of-00002.gguf" for number in (1, 2)]
    names[0].parent.mkdir()
    first, second = list(stored.items())[:5], list(stored.items())[5:]
    gguf_files.write(names[0], model_of("qwen2"), dict(first), **{"split.count": 2})
    gguf_files.write_raw(names[1], "qwen2", {"split.count": 2}, dict(second))
    tokens = oracle.prompt(20)[None]
    np.testing.assert_array_equal(logits_of(names[0].parent, tokens), logits_of(file, tokens))
    with pytest.raises(UserError, match=r"one of several parts; name the first, model-00001-of-00002\.gguf"):
        load_model(names[1])
    names[1].unlink()
    with pytest.raises(UserError, match=r"1 of its 2 parts are not there: model-00002-of-00002\.gguf"):
        load_model(names[0])


def test_a_folder_stands_for_its_only_file(file: Path) -> None:
    assert find_model(file.parent) == find_model(file)
    file.with_name("other.gguf").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"several models, name one of these files: model\.gguf, other\.gguf"):
        find_model(file.parent)


def test_it_becomes_a_folder(file: Path, tmp_path: Path) -> None:
    save_model(*load_model(file), tmp_path / "folder")
    tokens = oracle.prompt(20)[None]
    np.testing.assert_array_equal(logits_of(tmp_path / "folder", tokens), logits_of(file, tokens))


def test_the_fingerprint_sees_the_weights(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(file.read_bytes())
    assert fingerprint(find_model(copy)) == fingerprint(find_model(file))
    tensor = read_header(file).tensors["output_norm.weight"]
    content = bytearray(file.read_bytes())
    content[tensor.offset] ^= 1
    copy.write_bytes(content)
    assert fingerprint(find_model(copy)) != fingerprint(find_model(file))


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        (b"<|user|>{{", b"<|USER|>{{", "chat_template"),
        (b"tokenizer.ggml.pre", b"tokenizer.ggml.pra", "tokenizer"),
        (b"rope.freq_base", b"rope.freq_bass", "config"),
    ],
)
def test_the_other_fingerprints_are_of_its_metadata(
    file: Path, tmp_path: Path, old: bytes, new: bytes, differs: str
) -> None:
    known = fingerprints(find_model(file))
    content = file.read_bytes()
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(content.replace(old, new, 1))
    found = fingerprints(find_model(copy))
    assert [name for name in FINGERPRINTS if found[name] != known[name]] == [differs, "weights"]


def test_it_is_a_model_like_any_other(file: Path, tmp_path: Path) -> None:
    """What programs ask of a name before anything is loaded."""
    settings = verifier_settings(file, kind="judge", dtype="bfloat16")
    assert settings.model == str(file.resolve())
    assert read_kind(file) == {}
    config, said = model_shapes(ModelSource(pretrained=str(file)))
    assert (config, said) == (read_config(file), "shapes of its config.json")
    keep_base(tmp_path, file)
    assert read_base(tmp_path)["model"] == str(file.resolve())
    check_base(tmp_path, find_model(file), file)


@pytest.mark.parametrize("name", ["absent.gguf", "/absent/model.gguf", "a/b/c/d.gguf"])
def test_a_file_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name}: no such file$"):
        load_model(name)


# Configuration


def read(tmp_path: Path, family: str, stored: gguf_files.Stored | None = None, **extra: Any) -> dict[str, Any]:
    path = gguf_files.write(tmp_path / "c.gguf", model_of(family), stored, **extra)
    return read_gguf_config(path)


def test_numbers_are_those_that_were_meant(tmp_path: Path) -> None:
    config = read(tmp_path, "qwen2", **{"qwen2.attention.layer_norm_rms_epsilon": 1e-6})
    assert config["rms_norm_eps"] == 1e-6


def test_every_end_of_a_turn(tmp_path: Path) -> None:
    config = read(tmp_path, "qwen2", **{"tokenizer.ggml.eot_token_id": 7, "tokenizer.ggml.eom_token_id": 7})
    assert config["eos_token_id"] == [gguf_files.vocabulary(320)[0].index("<|end|>"), 7]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"qwen2.rope.scaling.type": "none"}, None),
        (
            {"qwen2.rope.scaling.type": "linear", "qwen2.rope.scaling.factor": 4.0},
            {"rope_type": "linear", "factor": 4.0},
        ),
        (
            {
                "qwen2.rope.scaling.type": "yarn",
                "qwen2.rope.scaling.factor": 4.0,
                "qwen2.rope.scaling.original_context_length": 32768,
            },
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        ),
    ],
)
def test_scaling_of_the_rotation(tmp_path: Path, extra: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert read(tmp_path, "qwen2", **extra).get("rope_scaling") == expected


def test_llama3_scaling_is_read_from_its_factors(tmp_path: Path) -> None:
    """What llama.cpp's converter writes: plain frequencies, divided by those that transformers computes."""
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    model = oracle.random_model("llama", 4, 2, tied=False, vocabulary=320, theta=5e5, rope=scaling)
    factors = 5e5 ** -(np.arange(0, 8, 2) / 8) / model.model.rotary_emb.inv_freq.numpy()
    stored = gguf_files.tensors_of(model) | {"rope_freqs.weight": (factors.astype(np.float32), Kind.F32)}
    path = gguf_files.write(tmp_path / "m.gguf", model, stored)
    assert read_gguf_config(path)["rope_scaling"] == scaling
    factors[1] *= 1.1
    stored |= {"rope_freqs.weight": (factors.astype(np.float32), Kind.F32)}
    with pytest.raises(UserError, match=r"rope_freqs\.weight scales the rotation in another way"):
        read_gguf_config(gguf_files.write(tmp_path / "n.gguf", model, stored))


# What is refused


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            {"general.architecture": "gemma2"},
            r"general\.architecture 'gemma2' is not supported \(we have: llama, ",
        ),
        ({"general.type": "adapter"}, "holds no model: its general.type is 'adapter'"),
        ({"qwen2.block_count": None}, r"qwen2\.block_count is missing"),
        ({"qwen2.attention.head_count": [4, 2]}, r"qwen2\.attention\.head_count is \[4, 2\], no whole number"),
        ({"qwen2.expert_count": 8}, r"qwen2\.expert_count = 8 is not supported"),
        ({"qwen2.rope.scaling.type": "longrope", "qwen2.rope.scaling.factor": 4.0}, "'longrope' is not supported"),
        ({"qwen2.rope.dimension_count": 4}, r"rope\.dimension_count 4 is another than the width of a head, 8"),
        ({"qwen2.block_count": 3}, r"m\.gguf: block_count is 3, the weights beside it have 2"),
    ],
)
def test_models_that_we_do_not_have(tmp_path: Path, extra: dict[str, Any], message: str) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", model_of("qwen2"), **extra)
    with pytest.raises(UserError, match=message) as error:
        load_model(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:2], "is no GGUF file"),
        (lambda content: b"GGML" + content[4:], "is no GGUF file"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:4665\n", "run `git lfs pull`"),
        (lambda content: content[:6], "truncated: it has 6 bytes"),
        (lambda content: content[:4] + content[4:8][::-1] + content[8:], "is big-endian"),
        (lambda content: content[:4] + b"\1" + content[5:], "GGUF version 1 is not supported"),
        (lambda content: content[:100], "truncated: it ends within its header, after 100 bytes"),
        (lambda content: content[:-100], "truncated: .* ends at .* bytes"),
        (lambda content: content[:8] + b"\xff" * 8 + content[16:], "corrupt: its header announces"),
        (lambda content: content[:24] + b"\xff" * 8 + content[32:], "corrupt: a text of"),
    ],
)
def test_damaged_files(file: Path, damage: Any, message: str) -> None:
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        load_model(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(20))
def test_any_damage_to_the_header_is_told(file: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(file.read_bytes())
    for place in rng.integers(4, 9000, 20):
        content[place] = rng.integers(256)
    file.write_bytes(content)
    with contextlib.suppress(UserError):  # or it still loads: a name that changed, for one
        load_model(file)


def test_factors_of_the_rotation_that_do_not_fit_the_heads(tmp_path: Path) -> None:
    model = model_of("llama")
    stored = gguf_files.tensors_of(model) | {"rope_freqs.weight": (np.full(3, 2.0, np.float32), Kind.F32)}
    path = gguf_files.write(tmp_path / "m.gguf", model, stored)
    with pytest.raises(UserError, match=r"rope_freqs\.weight has 3 factors, for heads that are 8 wide"):
        read_gguf_config(path)


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("qwen2")
    stored = gguf_files.tensors_of(model, {"ffn_gate": Kind.Q8_0})
    path = gguf_files.write(tmp_path / "m.gguf", model, stored)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UserError, match=r"ffn_gate\.weight is quantised, .* pip install 'thinkprm-jax\[gguf\]'"):
        load_model(path)
