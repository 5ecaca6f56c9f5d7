"""`thinkprm export`: runs of every kind as folders, what transformers makes of them, and what stops halfway."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

from support import oracle, tiny_model, tiny_run
from support.tiny_run import SPEC
from thinkprm_jax import cli
from thinkprm_jax.checkpoint.huggingface import load_model, read_config
from thinkprm_jax.checkpoint.names import stored_tensors
from thinkprm_jax.export import run as exporting

TOKENS = oracle.prompt(20)[None]


def make_base(folder: Path, tied: bool = False, **keys: Any) -> Path:
    """A base as others publish it: bfloat16, with a generation config and a model card."""
    theirs = oracle.random_model("qwen2", 4, 2, tied=tied, **keys).bfloat16()
    oracle.save(theirs, folder)
    (folder / "generation_config.json").write_text(json.dumps({"top_p": 0.9, "eos_token_id": [256, 3]}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A base\n")
    return folder


def export(*arguments: object) -> int:
    return cli.main(["export", *map(str, arguments)])


def logits_of(folder: Path) -> np.ndarray:
    """By transformers, in float32."""
    return oracle.logits(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), TOKENS)


def ours(folder: Path) -> np.ndarray:
    return jax.jit(lambda model, tokens: model(tokens))(load_model(folder)[0], TOKENS)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def expected_tensors(base: Path, trained: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the weights files must hold, by their names, in float32."""
    tensors = {}
    for tensor in stored_tensors(read_config(base)):
        if tensor.path in trained:
            array = trained[tensor.path]
            tensors[tensor.name] = array.T if tensor.transposed else array
            continue
        array = stored(base)[tensor.name].float().numpy()
        module = tensor.path.removesuffix(".kernel")
        if f"{module}.lora_a" in trained:
            delta = trained[f"{module}.lora_a"].astype(np.float64) @ trained[f"{module}.lora_b"]
            array = (array + SPEC.scale * delta.T).astype(np.float32)
        tensors[tensor.name] = array
    return tensors


# Weights


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_transformers_loads_the_weights_of_the_run(tmp_path: Path, tied: bool, lora: bool) -> None:
    base = make_base(tmp_path / "base", tied)
    trained = tiny_run.make_run(tmp_path / "run", base, lora)[4]
    assert export(tmp_path / "run", tmp_path / "out") == 0
    expected = expected_tensors(base, trained)
    found = stored(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == torch.float32
        np.testing.assert_allclose(found[name].numpy(), array, atol=1e-6, err_msg=name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.tensor(expected[name]))
    np.testing.assert_allclose(logits_of(tmp_path / "out"), oracle.logits(theirs, TOKENS), atol=1e-4)
    np.testing.assert_allclose(ours(tmp_path / "out"), oracle.logits(theirs, TOKENS), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_smaller_dtype_is_rounded_once(tmp_path: Path, lora: bool, dtype: str) -> None:
    tiny_run.make_run(tmp_path / "run", make_base(tmp_path / "base"), lora)
    export(tmp_path / "run", tmp_path / "exact", "--step", 2)
    assert export(tmp_path / "run", tmp_path / "out", "--step", 2, "--dtype", dtype) == 0
    exact = stored(tmp_path / "exact")
    for name, tensor in stored(tmp_path / "out").items():
        assert torch.equal(tensor, exact[name].to(getattr(torch, dtype))), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == dtype


@pytest.mark.slow
def test_several_files(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    tiny_run.make_run(tmp_path / "run", base, lora=True)
    export(tmp_path / "run", tmp_path / "one")
    run = exporting.TrainingRun(
        tmp_path / "run", "", {"data": {"train": {"chains": "x"}}, "lora": tiny_run.LORA}, str(base), SPEC
    )
    exporting.write_run(run, tmp_path / "many", None, np.dtype(np.float32), max_shard_bytes=20_000)
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 3
    np.testing.assert_array_equal(logits_of(tmp_path / "many"), logits_of(tmp_path / "one"))


@pytest.mark.slow
def test_the_adapter_alone(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    tiny_run.make_run(tmp_path / "run", base, lora=True)
    export(tmp_path / "run", tmp_path / "merged")
    assert export(tmp_path / "run", tmp_path / "adapter", "--adapter") == 0
    assert not list((tmp_path / "adapter").glob("model*"))
    np.testing.assert_allclose(ours(tmp_path / "adapter"), ours(tmp_path / "merged"), atol=1e-5)
    peft = pytest.importorskip("peft")
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
    np.testing.assert_allclose(oracle.logits(theirs, TOKENS), logits_of(tmp_path / "merged"), atol=1e-4)


# What else is in the folder


def test_it_says_one_line(tmp_path: Path, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture) -> None:
    tiny_run.make_run(tmp_path / "run", make_base(tmp_path / "base"))
    capfd.readouterr()
    export(tmp_path / "run", tmp_path / "out")
    assert capfd.readouterr() == (f"step 4 of {tmp_path / 'run'} is in {tmp_path / 'out'}\n", "")
    assert not caplog.records


def test_generation_config_keeps_what_the_base_says(tmp_path: Path) -> None:
    tiny_run.make_run(tmp_path / "run", make_base(tmp_path / "base"))
    export(tmp_path / "run", tmp_path / "out")
    expected = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [256, 3]}
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == expected
    read = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    assert (read.do_sample, read.temperature, read.top_p, read.eos_token_id) == (True, 0.6, 0.9, [256, 3])


def test_a_greedy_base_stays_greedy(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    (base / "generation_config.json").write_text('{"do_sample": false, "transformers_version": "4.1"}')
    tiny_run.make_run(tmp_path / "run", base)
    export(tmp_path / "run", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {"do_sample": False}


@pytest.mark.parametrize(
    ("family", "keys"),
    [
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("llama", {"rope": oracle.LLAMA3, "head_dim": 10, "attention_bias": True, "mlp_bias": True}),
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_config_says_what_transformers_would(tmp_path: Path, family: str, tied: bool, keys: dict) -> None:
    """Serving programs read it through transformers' configuration classes, or as transformers 4 wrote it."""
    theirs = oracle.random_model(family, 4, 2, tied=tied, theta=5e5, **keys).bfloat16()
    oracle.save(theirs, tmp_path / "base")
    tiny_run.make_run(tmp_path / "run", tmp_path / "base")
    export(tmp_path / "run", tmp_path / "out", "--dtype", "bfloat16")
    theirs.save_pretrained(tmp_path / "theirs")
    first, second = (transformers.AutoConfig.from_pretrained(tmp_path / at).to_dict() for at in ("out", "theirs"))
    for config in (first, second):
        for key in ("_name_or_path", "transformers_version", "head_dim", "rope_scaling", "rope_theta"):
            config.pop(key, None)
    assert first == second
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["architectures"] == [type(theirs).__name__]
    assert written["head_dim"] == theirs.model.layers[0].self_attn.head_dim
    assert (written["rope_theta"], written["torch_dtype"]) == (5e5, "bfloat16")


def test_a_discriminative_run_says_so(tmp_path: Path) -> None:
    tiny_run.make_run(tmp_path / "run", make_base(tmp_path / "base"), task="discriminative")
    export(tmp_path / "run", tmp_path / "out")
    kind = {"task": "discriminative", "separator": " ки", "labels": ["+", "-"]}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["thinkprm"] == kind
    assert read_config(tmp_path / "out").extra["thinkprm"] == kind
    assert "` ки`" in (tmp_path / "out" / "README.md").read_text()
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").hidden_size == 32


# The card


def read_card(folder: Path) -> tuple[dict[str, Any], str]:
    _, header, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(header), text


def test_the_card_tells_the_run(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    tiny_run.make_run(tmp_path / "run", base, lora=True)
    export(tmp_path / "run", tmp_path / "verifier")
    header, text = read_card(tmp_path / "verifier")
    assert header["license"] == "mit"
    assert "base_model" not in header  # a folder of this machine is nothing on the hub
    for part in (
        "# verifier",
        f"fine-tuned from `{base}` with LoRA (rank 4, alpha 12); the adapter is merged",
        "step 4 of a training run",
        "| loss | 0.25 | 4 |",
        "| held_out_loss | 0.5 | 2 |",
        "60 examples; left out",
    ):
        assert part in text
    assert "tokens_per_second" not in text
    recipe = re.search(r"## Recipe\n\n```yaml\n(.*?)```", text, re.DOTALL)[1]
    assert yaml.safe_load(recipe) == yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    export(tmp_path / "run", tmp_path / "verifier", "--step", 2)
    assert "| loss | 0.75 | 2 |" in (tmp_path / "verifier" / "README.md").read_text()


def test_the_card_names_a_base_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_base(tmp_path / "base")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(base))
    tiny_run.make_run(tmp_path / "run", base, lora=True, pretrained="someone/base")
    export(tmp_path / "run", tmp_path / "out", "--adapter")
    header, text = read_card(tmp_path / "out")
    assert (header["base_model"], header["base_model_relation"]) == ("someone/base", "adapter")
    assert header["library_name"] == "peft"
    assert 'LLM("someone/base", enable_lora=True, max_lora_rank=4)' in text
    assert (
        json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "someone/base"
    )


@pytest.mark.slow
def test_the_code_of_the_card_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives the score that our own verifier gives for the chain it wrote."""
    base = tiny_model.save_folder(tmp_path / "base")
    tiny_run.make_run(tmp_path / "run", base)
    export(tmp_path / "run", tmp_path / "out")
    (code,) = re.findall(
        r"## With transformers\n.*?```python\n(.*?)```", read_card(tmp_path / "out")[1], re.DOTALL
    )
    code = code.replace("max_new_tokens=4096", "max_new_tokens=12, do_sample=False")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"problem": "What is 3 + 4?", "steps": ["3 + 4 = 7"]}
    exec(compile(code, "card", "exec"), names)
    model, tokenizer = load_model(tmp_path / "out")
    from thinkprm_jax.protocol.prompts import encode_prompt

    prompt = encode_prompt(tokenizer, names["problem"], names["steps"])
    assert tokenizer.encode(names["prompt"]) == prompt
    ids = tokenizer.encode(names["asked"])
    logits = np.asarray(model(jnp.asarray([ids]))[0, -1], np.float64)
    yes, no = logits[tokenizer.token_id(" Yes")], logits[tokenizer.token_id(" No")]
    assert names["score"] == pytest.approx(1 / (1 + np.exp(no - yes)), abs=1e-4)
