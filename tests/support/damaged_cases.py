"""Good files of every kind that programs read, what reads them, and so what is damaged."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy
import sentencepiece

from support import damage_gguf, damaged_packed, damaged_runs, tiny_model
from support.damage import Case
from thinkprm_jax.checkpoint.fingerprint import fingerprint
from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.checkpoint.weights import find_model
from thinkprm_jax.collect.recipe import CollectRecipe
from thinkprm_jax.data.chains import read_chains
from thinkprm_jax.data.prm800k import read_prm800k
from thinkprm_jax.data.solutions import read_solved_problems
from thinkprm_jax.protocol.prompts import encode_prompt
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.records.inputs import SolutionFile
from thinkprm_jax.records.reading import read
from thinkprm_jax.search.recipe import load_search_recipe
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.training.config import TrainRecipe
from thinkprm_jax.verifier.registry import default_settings

REPOSITORY = Path(__file__).parents[2]


def cases(folder: Path) -> list[Case]:
    """All kinds of files, with good ones below ``folder``."""
    model = folder / "model"
    if not model.exists():
        _make_folders(folder)
    found = [Case(name, model / name, read_model, model) for name in MODEL_FILES]
    for kind, reader, names in (
        ("sharded", read_model, ("model.safetensors.index.json",)),
        ("adapter", read_model, ("adapter_config.json", "adapter_model.safetensors")),
        ("sentencepiece", read_tokenizer, ("tokenizer.model", "tokenizer_config.json", "added_tokens.json")),
    ):
        found += [Case(f"{kind} {name}", folder / kind / name, reader, folder / kind) for name in names]
    for kind, reader in RECIPES.items():
        paths = sorted((REPOSITORY / "configs" / kind).glob("*.yaml"))
        found += [Case(f"{kind} {path.name}", path, reader) for path in (paths[0], paths[-1])]
    found += [Case(name, folder / "rows" / f"{name}.jsonl", reader) for name, reader in ROWS.items()]
    found += [Case(f"gguf {family}", folder / f"{family}.gguf", read_model) for family in GGUF_FAMILIES]
    for packed in sorted((folder / "packed").iterdir()):
        names = ("config.json", "model.safetensors")
        found += [Case(f"{packed.name} {name}", packed / name, read_model, packed) for name in names]
    return found + damaged_runs.cases(folder / "run")


MODEL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "model.safetensors", "chat_template.jinja",
)  # fmt: skip


GGUF_FAMILIES = ("qwen2", "llama")


def read_model(folder: Path) -> None:
    """All that a program does with a model before it computes."""
    read_tokenizer(folder)
    files = find_model(str(folder))
    default_settings(str(folder), default="thinkprm")
    fingerprint(files)
    load_model(files)


def read_tokenizer(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        return
    tokenizer = Tokenizer.load(folder)
    if tokenizer.chat_template is not None:
        encode_prompt(tokenizer, "2 + 2?", ["2 + 2 = 4."])
    ids = tokenizer.encode("a <think> b") + tokenizer.encode_plain("Größe 学 \n\n 12")
    tokenizer.decode(ids)
    b"".join(map(tokenizer.token_bytes, ids))


def read_solutions(path: Path) -> None:
    with SolutionFile(path, ("verdict",)) as rows:
        for index in range(len(rows)):
            rows[index]


ROWS: dict[str, Callable[[Path], object]] = {
    "solutions": read_solutions,
    "chains": lambda path: read_chains(str(path)),
    "solved": lambda path: read_solved_problems(str(path)),
    "results": read,
    "search": read,
    "prm800k": lambda path: list(read_prm800k(path)),
}
RECIPES: dict[str, Callable[[Path], object]] = {
    "train": lambda path: load_recipe(TrainRecipe, path),
    "collect": lambda path: load_recipe(CollectRecipe, path),
    "search": lambda path: load_search_recipe(str(path), []),
}


def _make_folders(folder: Path) -> None:
    model = tiny_model.save_folder(folder / "model", layers=1)
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    (model / "chat_template.jinja").write_text(config.pop("chat_template"), encoding="utf-8")
    added = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    config["added_tokens_decoder"] = {str(token.pop("id")): token for token in added[:4]}
    config["extra_special_tokens"] = [added[0]["content"]]
    (model / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    _make_sharded(model, folder / "sharded")
    _make_adapter(model, folder / "adapter")
    _make_sentences(folder / "sentencepiece")
    for family in GGUF_FAMILIES:
        damage_gguf.write_file(folder / f"{family}.gguf", family)
    damaged_packed.make(folder / "packed", model)
    damaged_runs.make(folder / "run", model)
    rows = folder / "rows"
    rows.mkdir()
    version = Path(__file__).parents[1] / "records" / "version_1"
    for name, source in {
        "solutions": "solutions.jsonl",
        "results": "score.jsonl",
        "search": "best_of_n/completions.jsonl",
    }.items():
        shutil.copy(version / source, rows / f"{name}.jsonl")
    chain = {
        "problem": "2 + 3?", "cot": "Step 1: The step is \\boxed{correct}", "prefix_steps": ["2 + 3 = 5."],
        "gt_step_labels": ["+"], "prefix_label": True,
    }  # fmt: skip
    solved = {"problem": "2 + 3?", "solution": "2 + 3 = 5."}
    rated = {
        "question": {"problem": "2 + 3?"},
        "label": {"steps": [{"completions": [{"text": "5", "rating": 1}], "chosen_completion": 0}]},
    }  # fmt: skip
    for name, row in {"chains": chain, "solved": solved, "prm800k": rated}.items():
        (rows / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * 3, encoding="utf-8")


def _make_sharded(model: Path, folder: Path) -> None:
    shutil.copytree(model, folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    names = safetensors.numpy.load_file(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def _make_adapter(model: Path, folder: Path) -> None:
    from thinkprm_jax.checkpoint.adapter import Adapter, write_adapter
    from thinkprm_jax.checkpoint.huggingface import read_config
    from thinkprm_jax.model.lora import LoraSpec

    config = read_config(model)
    spec = LoraSpec(2, 4.0, ("q_proj",))
    width = config.num_heads * config.head_dim
    path = "layers.0.attention.query"
    matrices = {path: (np.ones((config.hidden_size, 2), np.float32), np.ones((2, width), np.float32))}
    folder.mkdir()
    write_adapter(folder, Adapter(2.0, matrices), spec, config, str(model), np.dtype(np.float32))


def _make_sentences(folder: Path) -> None:
    folder.mkdir()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(["Is the solution correct? Yes. No: 2 + 2 = 5, so the step is wrong."] * 9),
        model_writer=model, vocab_size=320, hard_vocab_limit=False, byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    config = {
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "lstrip": False},
        "legacy": True,
        "sep_token": "<q>",
    }
    config["chat_template"] = "{% for m in messages %}{{ bos_token + m.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    (folder / "added_tokens.json").write_text('{\n "<think>": 400\n}\n')
