"""Is it the same model? Without reading all of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from support import gguf_files
from thinkprm_jax.checkpoint.adapter import AdapterConfig
from thinkprm_jax.checkpoint.fingerprint import fingerprint, fingerprints, is_fingerprint_of, weight_files
from thinkprm_jax.checkpoint.weights import BUNDLED, ModelFiles
from thinkprm_jax.errors import UserError
from thinkprm_jax.records.schema import FINGERPRINTS

Tensors = dict[str, np.ndarray]


def tensors() -> Tensors:
    """8 MB: more than is read whole."""
    draw = np.random.default_rng(0)
    return {
        "embed": draw.standard_normal((1000, 1000), np.float32),
        "map": draw.standard_normal((1000, 1000), np.float32),
        "norm": np.ones(1000, np.float32),
        "score.weight": draw.standard_normal((2, 1000), np.float32),
    }


def save(folder: Path, content: Tensors) -> ModelFiles:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(content, folder / "model.safetensors", {"format": "pt"})
    return ModelFiles(folder)


def change(name: str, place: tuple[slice, ...]) -> Callable[[Tensors], None]:
    def apply(content: Tensors) -> None:
        content[name][place] += 0.5

    return apply


def recast(content: Tensors) -> None:
    content["map"] = content["map"].astype(np.float16)


def rename(content: Tensors) -> None:
    content["other"] = content.pop("map")


def test_it_does_not_depend_on_the_place(tmp_path):
    known = fingerprint(save(tmp_path / "a", tensors()))
    shutil.copytree(tmp_path / "a", tmp_path / "somewhere" / "else")
    assert fingerprint(ModelFiles(tmp_path / "somewhere" / "else")) == known
    assert fingerprint(save(tmp_path / "a", tensors())) == known  # written again


@pytest.mark.parametrize(
    "apply",
    [
        change("map", (slice(None), slice(None))),
        change("norm", (slice(500, 501),)),  # one number of a small tensor
        change("score.weight", (slice(0, 1), slice(3, 4))),
        change("embed", (slice(990, None), slice(None))),  # the last rows: new tokens
        change("map", (slice(400, 420), slice(None))),  # 2% in the middle
        recast,
        rename,
    ],
)
def test_another_export_over_the_old_one_is_seen(tmp_path, apply):
    content = tensors()
    known = fingerprint(save(tmp_path, content))
    apply(content)
    assert fingerprint(save(tmp_path, content)) != known


def test_one_bit_of_a_small_file_is_seen(tmp_path):
    shutil.copytree(BUNDLED["mini"], tmp_path / "mini")
    known = fingerprint(ModelFiles(BUNDLED["mini"]))
    assert fingerprint(ModelFiles(tmp_path / "mini")) == known
    assert len({known, *(fingerprint(ModelFiles(BUNDLED[name])) for name in BUNDLED)}) == len(BUNDLED)


def rewrite(name: str, **values: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(dict(reversed({**content, **values}.items()))))

    return apply


def template_file(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def same_template_in_a_file(folder: Path) -> None:
    template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    (folder / "chat_template.jinja").write_text(template)


def another_vocabulary(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text() + " ")


@pytest.mark.parametrize(
    ("apply", "differs"),
    [
        (rewrite("tokenizer_config.json", chat_template="{{ messages }}"), {"chat_template"}),
        (template_file, {"chat_template"}),
        (same_template_in_a_file, set()),
        (another_vocabulary, {"tokenizer"}),
        (rewrite("special_tokens_map.json", bos_token="<think>"), {"tokenizer"}),
        (rewrite("added_tokens.json", added=7), {"tokenizer"}),
        (rewrite("tokenizer_config.json", model_max_length=7, tokenizer_class="Other"), set()),
        (rewrite("config.json", rope_theta=7.0), {"config"}),
        (rewrite("generation_config.json", eos_token_id=7), {"config"}),
        (rewrite("config.json", transformers_version="9", torch_dtype="float16", _name_or_path="x"), set()),
        (rewrite("generation_config.json", temperature=0.5), set()),
    ],
)
def test_which_file_differs_is_told(tmp_path, apply, differs):
    shutil.copytree(BUNDLED["mini"], tmp_path / "mini")
    known = fingerprints(ModelFiles(tmp_path / "mini"))
    assert list(known) == list(FINGERPRINTS)
    apply(tmp_path / "mini")
    found = fingerprints(ModelFiles(tmp_path / "mini"))
    assert {name for name in FINGERPRINTS if found[name] != known[name]} == differs


def test_a_damaged_file_of_the_tokenizer_is_named(tmp_path):
    shutil.copytree(BUNDLED["mini"], tmp_path / "mini")
    (tmp_path / "mini" / "tokenizer_config.json").write_text("{")
    with pytest.raises(UserError, match=r"mini: tokenizer_config.json: cannot be read as JSON"):
        fingerprints(ModelFiles(tmp_path / "mini"))


def test_files_with_an_index_are_all_looked_at(tmp_path):
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    found = set()
    for value in (1.0, 2.0):
        save_file({"a": np.ones(10, np.float32)}, tmp_path / names["a"])
        save_file({"b": np.full(10, value, np.float32)}, tmp_path / names["b"])
        found.add(fingerprint(ModelFiles(tmp_path)))
    assert len(found) == 2
    assert [path.name for path in weight_files(ModelFiles(tmp_path))] == sorted(names.values())


def test_an_adapter_its_numbers_and_its_scale_are_part_of_it(tmp_path):
    base = save(tmp_path / "base", {"a": np.ones(10, np.float32)}).base
    found = {fingerprint(ModelFiles(base))}
    for folder, value, scale in (("x", 1.0, 2.0), ("y", 2.0, 2.0), ("x", 1.0, 4.0)):
        (tmp_path / folder).mkdir(exist_ok=True)
        save_file({"lora": np.full(10, value, np.float32)}, tmp_path / folder / "adapter_model.safetensors")
        adapter = AdapterConfig(base=str(base), rank=2, scale=scale)
        found.add(fingerprint(ModelFiles(base, ((tmp_path / folder, adapter),))))
    assert len(found) == 4


def test_of_a_gguf_file_each_part_is_looked_at(tmp_path):
    def fingerprint_with(second: float) -> str:
        stored = {"token_embd.weight": (np.ones((8, 32), np.float32), gguf_files.Kind.F32)}
        for number, value in ((1, 1.0), (2, second)):
            stored["token_embd.weight"][0][-1, -1] = value
            path = tmp_path / f"model-{number:05d}-of-00002.gguf"
            gguf_files.write_raw(path, "llama", {"split.count": 2, "split.no": number - 1}, stored)
        return fingerprint(ModelFiles(tmp_path / "model-00001-of-00002.gguf"))

    assert fingerprint_with(1.0) == fingerprint_with(1.0) != fingerprint_with(2.0)


def test_without_weights_there_is_none(tmp_path):
    with pytest.raises(UserError, match=r"holds neither model.safetensors nor"):
        fingerprint(ModelFiles(tmp_path))


def test_a_run_of_before_knows_its_base(tmp_path):
    """What base.json of such a run holds: the first bytes of every tensor alone."""
    model = save(tmp_path, {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(3, np.float16)})
    assert is_fingerprint_of("14afd7b4ed450144b8f2d1e96371868e", model)
    assert is_fingerprint_of(fingerprint(model), model)
    assert not is_fingerprint_of("of another", model)
