"""Hugging Face folders: what is read, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from support import oracle
from thinkprm_jax.checkpoint import huggingface
from thinkprm_jax.checkpoint.huggingface import load_model, read_config, save_model
from thinkprm_jax.errors import UserError

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def theirs() -> transformers.PreTrainedModel:
    return oracle.random_model("qwen2", 4, 2, tied=False)


@pytest.fixture
def folder(theirs: transformers.PreTrainedModel, tmp_path: Path) -> Path:
    return oracle.save(theirs, tmp_path / "model")


@pytest.fixture
def sharded(theirs: transformers.PreTrainedModel, tmp_path: Path) -> Path:
    return oracle.save(theirs, tmp_path / "sharded", max_shard_size="40KB")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    def bits(tensor: torch.Tensor) -> bytes:
        return tensor.contiguous().view(torch.uint8).numpy().tobytes()

    return first.keys() == second.keys() and all(
        first[k].dtype == second[k].dtype and bits(first[k]) == bits(second[k]) for k in first
    )


def edit_config(folder: Path, **keys: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


# Reading


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("asked", ["float32", "bfloat16", "float16"])
def test_any_dtype_in_the_asked_one_out(folder: Path, stored: torch.dtype, asked: str) -> None:
    tensors = {name: tensor.to(stored) for name, tensor in weights(folder).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model, _ = load_model(folder, asked)
    assert model.dtype == jnp.dtype(asked)
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(asked)}
    expected = tensors["model.layers.1.mlp.down_proj.weight"].to(getattr(torch, asked)).float().numpy().T
    np.testing.assert_array_equal(model.layers[1].mlp.down.kernel[...].astype(jnp.float32), expected)


def test_one_file_and_many_are_the_same(folder: Path, sharded: Path) -> None:
    assert len(list(sharded.glob("*.safetensors"))) > 3
    one, many = load_model(folder)[0], load_model(sharded)[0]
    jax.tree.map(np.testing.assert_array_equal, one, many)


def test_blocks_of_a_large_tensor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_model(folder)[0]
    monkeypatch.setattr("thinkprm_jax.checkpoint.pieces._BLOCK_BYTES", 1000)
    jax.tree.map(np.testing.assert_array_equal, load_model(folder)[0], whole)


def test_loaded_parameters_can_be_donated(folder: Path) -> None:
    """A parameter may share its memory with the array it was read into."""
    model = load_model(folder)[0]
    before = jax.tree.map(np.array, model)
    doubled = jax.jit(lambda model: jax.tree.map(lambda x: 2 * x, model), donate_argnums=0)(model)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(2 * x, y), before, doubled)


def test_ids_of_the_generation_config_win(folder: Path) -> None:
    edit_config(folder, bos_token_id=1, eos_token_id=2)
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert (read_config(folder).bos_token_id, read_config(folder).eos_token_id) == (1, 2)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    assert (read_config(folder).bos_token_id, read_config(folder).eos_token_id) == (1, (2, 5))


def test_tensors_known_to_be_harmless(folder: Path) -> None:
    tensors = weights(folder)
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file({**tensors, **extra}, folder / "model.safetensors")
    load_model(folder)


def tied_in_word_alone(folder: Path) -> transformers.PreTrainedModel:
    """The untied model of ``folder`` under a config.json that says tied, as transformers loads it."""
    edit_config(folder, tie_word_embeddings=True)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("place", ["folder", "sharded"])
def test_a_head_beside_tied_embeddings_is_kept(
    place: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    found = request.getfixturevalue(place)
    theirs, tokens = tied_in_word_alone(found), oracle.prompt(30)[None]
    model, _ = load_model(found)
    np.testing.assert_allclose(model(tokens), oracle.logits(theirs, tokens), atol=1e-4)
    assert "lm_head.weight is another matrix than the embedding: it is kept as the head" in caplog.text
    assert not model.config.tie_embeddings


def test_a_kept_head_is_saved_as_one(folder: Path, tmp_path: Path) -> None:
    theirs, tokens = tied_in_word_alone(folder), oracle.prompt(30)[None]
    save_model(*load_model(folder), tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["tie_word_embeddings"] is False
    saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    np.testing.assert_allclose(oracle.logits(saved, tokens), oracle.logits(theirs, tokens), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_that_equals_the_embedding_is_tied(folder: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in weights(folder).items()}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].to(dtype, copy=True)
    save_file(tensors, folder / "model.safetensors")
    edit_config(folder, tie_word_embeddings=True)
    assert load_model(folder)[0].head is None


def test_a_tied_matrix_may_be_stored_as_the_head_alone(folder: Path) -> None:
    tensors = weights(folder)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    theirs, tokens = tied_in_word_alone(folder), oracle.prompt(30)[None]
    np.testing.assert_allclose(load_model(folder)[0](tokens), oracle.logits(theirs, tokens), atol=1e-4)


# Refusing


def test_all_wrong_tensors_in_one_message(folder: Path) -> None:
    tensors = weights(folder)
    del tensors["model.norm.weight"], tensors["model.layers.1.self_attn.q_proj.bias"]
    tensors["score.weight"] = torch.zeros(2, 2)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(32, 72)
    tensors["model.layers.0.input_layernorm.weight"] = torch.zeros(32, dtype=torch.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError) as error:
        load_model(folder)
    for part in (
        "missing: model.layers.1.self_attn.q_proj.bias, model.norm.weight;",
        "unexpected: score.weight;",
        "model.layers.0.mlp.up_proj.weight [32, 72] instead of [72, 32];",
        "model.layers.0.input_layernorm.weight I8",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layers", [1, 3, 900])
def test_layers_are_counted_before_anything_is_computed(folder: Path, layers: int) -> None:
    edit_config(folder, num_hidden_layers=layers, layer_types=["full_attention"] * layers)
    with pytest.raises(
        UserError, match=f"config.json: num_hidden_layers is {layers}, the weights beside it have 2$"
    ):
        load_model(folder)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_numbers_that_are_not_finite_are_named(folder: Path, wrong: float, dtype: str) -> None:
    tensors = weights(folder)
    tensors["model.layers.1.mlp.up_proj.weight"][70, 30] = wrong
    save_file(
        {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}, folder / "model.safetensors"
    )
    message = r"model\.safetensors: model\.layers\.1\.mlp\.up_proj\.weight holds numbers that are not finite"
    with pytest.raises(UserError, match=message):
        load_model(folder, dtype)


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_that_a_dtype_cannot_hold_are_named(folder: Path, sign: int) -> None:
    tensors = weights(folder)
    tensors["model.norm.weight"][3] = sign * 70_000.0
    save_file(tensors, folder / "model.safetensors")
    load_model(folder, "bfloat16")
    with pytest.raises(UserError, match=r"model\.norm\.weight holds numbers .* that float16 cannot hold"):
        load_model(folder, "float16")


def test_a_pointer_of_git_lfs_says_so(sharded: Path) -> None:
    path = sorted(sharded.glob("*.safetensors"))[1]
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 4665\n")
    with pytest.raises(UserError, match=f"{path.name}: is a pointer of git-lfs, not the file: run `git lfs pull`"):
        load_model(sharded)


@pytest.mark.parametrize(
    "content", ['{"eos_token_id": "end"}', '{"bos_token_id": [1]}', '{"eos_token_id": [1e999]}']
)
def test_ids_of_the_generation_config_are_ids(folder: Path, content: str) -> None:
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(UserError, match=r"generation_config\.json: (bos|eos)_token_id is "):
        load_model(folder)


def test_untied_without_a_head(folder: Path) -> None:
    tensors = weights(folder)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"missing: lm_head\.weight$"):
        load_model(folder)


@pytest.mark.parametrize("kept", [0, 5, 100, 3000, -1])
def test_truncated_file_is_named(sharded: Path, kept: int) -> None:
    path = sorted(sharded.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=f"{path.name}: truncated"):
        load_model(sharded)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 64,
        (20).to_bytes(8, "little") + b"{not json at all....",
        (2).to_bytes(8, "little") + b"[]",
        (19).to_bytes(8, "little") + b'{"a":{"dtype":"F3"}',
    ],
)
def test_corrupt_file_is_named(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: corrupt"):
        load_model(folder)


def test_a_file_longer_than_its_header_says_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"left over")
    with pytest.raises(UserError, match=r"model\.safetensors: truncated, or longer than its header says$"):
        load_model(folder)


@pytest.mark.parametrize(
    "entry",
    [
        *("5", "[]", "null", '{"dtype":"F32"}', '{"dtype":7,"shape":[2],"data_offsets":[0,8]}', "[" * 100_000),
        *(
            f'{{"dtype":"F32","shape":{shape},"data_offsets":[0,8]}}'
            for shape in (
                "[1e999]",
                "[NaN]",
                "[-2]",
                "[2.5]",
                f"[{10**400}]",
                "[4294967296,4294967296,2]",
                '"2"',
                "2",
            )
        ),
    ],
    ids=lambda entry: entry[:60],
)
def test_headers_that_cannot_be(folder: Path, entry: str) -> None:
    header = f'{{"a":{entry}}}'.encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(UserError, match=r"model\.safetensors: (corrupt|truncated)") as error:
        load_model(folder)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("offsets", [[0, 4], [4, 12], [0, 12], [8, 0], [-8, 0]])
def test_offsets_that_do_not_fit(folder: Path, offsets: list[int]) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    with pytest.raises(UserError, match=r"model\.safetensors: corrupt"):
        load_model(folder)


def test_missing_shard_is_named(sharded: Path) -> None:
    path = sorted(sharded.glob("*.safetensors"))[2]
    path.unlink()
    with pytest.raises(UserError, match=f"{INDEX}: names files that are not there: {path.name}"):
        load_model(sharded)


def test_index_that_leaves_its_folder(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = "../model/model.safetensors"
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="outside its folder"):
        load_model(sharded)


def test_folders_that_hold_no_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_model(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no config\.json"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="dtype 'int8'"):
        load_model(folder, "int8")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is not read"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: cannot be read as JSON"):
        load_model(folder)

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network\nand more lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(UserError, match=r"owner/name: no such folder, and not available .*\(no network\)$"):
        load_model("owner/name")


def test_tokenizer_larger_than_the_model(folder: Path) -> None:
    edit_config(folder, vocab_size=100)
    with pytest.raises(UserError, match="ids up to 256"):
        load_model(folder)


# Writing


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_round_trip_bit_for_bit(tmp_path: Path, dtype: str, tied: bool, family: str) -> None:
    theirs = oracle.random_model(family, 4, 2, tied=tied, attention_bias=True, head_dim=10, rope=oracle.LLAMA3)
    first = oracle.save(theirs.to(getattr(torch, dtype)), tmp_path / "first")
    edit_config(first, eos_token_id=[3, 4], bos_token_id=2)
    save_model(*load_model(first, dtype), tmp_path / "second")
    model, tokenizer = load_model(tmp_path / "second", dtype)
    save_model(model, tokenizer, tmp_path / "third", max_shard_bytes=20_000)
    assert same_bits(weights(first), weights(tmp_path / "second"))
    assert same_bits(weights(first), weights(tmp_path / "third"))
    assert (model.config.eos_token_id, model.config.bos_token_id) == ((3, 4), 2)
    assert tokenizer.encode("any text") == oracle.tokenizer().encode("any text")


@pytest.mark.parametrize("shard", [10**9, 20_000])
def test_transformers_loads_what_we_write(sharded: Path, tmp_path: Path, shard: int) -> None:
    ours, tokenizer = load_model(sharded)
    save_model(ours, tokenizer, tmp_path / "ours", shard)
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    tokens = oracle.prompt(30)[None]
    np.testing.assert_allclose(oracle.logits(read, tokens), ours(tokens), atol=1e-4)
    files = sorted((tmp_path / "ours").glob("*.safetensors"))
    for file in files:
        with safe_open(file, "numpy") as opened:
            assert opened.metadata() == {"format": "pt"}
    if shard > 20_000:
        assert [file.name for file in files] == ["model.safetensors"]
        return
    index = json.loads((tmp_path / "ours" / INDEX).read_text())
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert index["metadata"]["total_size"] == sum(p.nbytes for p in jax.tree.leaves(ours))


def test_saving_in_another_dtype(folder: Path, tmp_path: Path) -> None:
    save_model(*load_model(folder), tmp_path / "half", dtype="bfloat16")
    assert {tensor.dtype for tensor in weights(tmp_path / "half").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_saving_over_an_older_model(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(folder)
    target = tmp_path / "out"
    save_model(model, tokenizer, target, max_shard_bytes=20_000)
    (target / "README.md").write_text("kept")
    save_model(model, tokenizer, target)
    assert {path.name for path in target.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert same_bits(weights(target), weights(folder))


def test_a_failed_save_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    model, tokenizer = load_model(folder)
    monkeypatch.setattr(huggingface, "write_configs", full)
    (tmp_path / "in").mkdir()
    with pytest.raises(OSError, match="no space"):
        save_model(model, tokenizer, tmp_path / "in" / "out")
    assert list((tmp_path / "in").iterdir()) == []


def test_other_readers_agree_with_our_writer(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(folder)
    save_model(model, tokenizer, tmp_path / "out")
    read = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(
        read["model.layers.0.mlp.gate_proj.weight"].T, model.layers[0].mlp.gate.kernel[...]
    )
