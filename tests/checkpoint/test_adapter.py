"""Adapters in peft's layout: the arithmetic, what is written, what is read, what is refused.

The arithmetic is peft's, written out in torch: y = W x + b + (alpha / r) B A x. Where peft is installed, it reads
ours and we read its.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from support import oracle
from thinkprm_jax.checkpoint.adapter import adapter_of, write_adapter
from thinkprm_jax.checkpoint.huggingface import load_model, read_config
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.lora import HF_TARGETS, LoraSpec, lora_shapes
from thinkprm_jax.training.trainer import Trainer, parameters_of

SPEC = LoraSpec(rank=4, alpha=10.0)
TOKENS = oracle.prompt(25)[None]
FIRST_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


class TorchLora(torch.nn.Module):
    """A linear map with an adapter beside it, as peft computes it."""

    def __init__(self, base: torch.nn.Linear, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.lora_A, self.lora_B = torch.nn.Parameter(a), torch.nn.Parameter(b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        down = torch.nn.functional.linear(x, self.lora_A)
        return self.base(x) + torch.nn.functional.linear(down, self.lora_B) * self.scale


def with_lora(
    model: transformers.PreTrainedModel, tensors: dict[str, torch.Tensor], scale: float
) -> dict[str, TorchLora]:
    """Puts the adapter into the model; its maps by name."""
    maps = {}
    for name in tensors:
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            parent, _, child = module.rpartition(".")
            b = tensors[name.replace("lora_A", "lora_B")]
            maps[module] = TorchLora(model.get_submodule(module), tensors[name].float(), b.float(), scale)
            setattr(model.get_submodule(parent), child, maps[module])
    return maps


@pytest.fixture
def theirs(request: pytest.FixtureRequest) -> transformers.PreTrainedModel:
    family = getattr(request, "param", "qwen2")
    return oracle.random_model(family, 4, 2, tied=False, **({"head_dim": 12} if family == "qwen3" else {}))


each_family = pytest.mark.parametrize("theirs", ["qwen2", "qwen3"], indirect=True)


@pytest.fixture
def base(theirs: transformers.PreTrainedModel, tmp_path: Path) -> Path:
    return oracle.save(theirs, tmp_path / "base")


def random_adapter(base: Path, spec: LoraSpec = SPEC) -> dict[str, np.ndarray]:
    """By our paths; B is not zero."""
    rng = np.random.default_rng(1)
    shapes = lora_shapes(read_config(base), spec)
    return {name: rng.normal(0, 0.15, shape).astype(np.float32) for name, shape in shapes.items()}


def save_adapter(folder: Path, base: Path, spec: LoraSpec = SPEC) -> Path:
    folder.mkdir()
    adapter = adapter_of(random_adapter(base, spec), spec.scale)
    write_adapter(folder, adapter, spec, read_config(base), str(base), np.dtype(np.float32))
    return folder


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "adapter", base)


def logits_of(folder: Path) -> jax.Array:
    return jax.jit(lambda model, tokens: model(tokens))(load_model(folder)[0], TOKENS)


def edit(folder: Path, **fields: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# Arithmetic


@pytest.mark.slow
def test_logits_of_an_adapter_folder(theirs: transformers.PreTrainedModel, folder: Path) -> None:
    """Merged while loading; torch keeps the adapter beside its maps."""
    untouched = oracle.logits(theirs, TOKENS)
    maps = with_lora(theirs, load_file(folder / "adapter_model.safetensors"), SPEC.alpha / SPEC.rank)
    assert len(maps) == 2 * len(HF_TARGETS)
    expected = oracle.logits(theirs, TOKENS)
    assert np.abs(expected - untouched).max() > 1
    np.testing.assert_allclose(logits_of(folder), expected, atol=1e-4)


@each_family
def test_logits_and_gradients_beside_the_base(
    theirs: transformers.PreTrainedModel, base: Path, folder: Path
) -> None:
    maps = with_lora(theirs, load_file(folder / "adapter_model.safetensors"), SPEC.alpha / SPEC.rank)
    tokens = torch.tensor(TOKENS, dtype=torch.long)
    logits = theirs(tokens).logits
    torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:]).backward()

    mesh = make_mesh(devices=jax.devices()[:1])
    trainer = Trainer(read_config(base), optax.identity(), mesh, "float32", lora=SPEC, frozen_dtype="float32")
    frozen = parameters_of(load_model(base)[0])
    params = {name: jnp.asarray(value) for name, value in random_adapter(base).items()}

    def loss(params: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        logits = trainer.model(params, frozen)(jnp.asarray(TOKENS))
        chosen = jax.nn.log_softmax(logits[0, :-1])[np.arange(TOKENS.shape[1] - 1), TOKENS[0, 1:]]
        return -chosen.mean(), logits

    gradients, ours = jax.jit(jax.grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(ours, logits.detach().numpy(), atol=1e-4)
    names = {f"model.layers.{layer}": f"layers.{layer}" for layer in range(2)}
    for module, found in maps.items():
        layer, path = module.rsplit(".", 2)[0], HF_TARGETS[module.rsplit(".", 1)[1]]
        for matrix, parameter in (("lora_a", found.lora_A), ("lora_b", found.lora_B)):
            gradient = parameter.grad.numpy().T
            np.testing.assert_allclose(
                gradients[f"{names[layer]}.{path}.{matrix}"], gradient, atol=1e-4 * np.abs(gradient).max() + 1e-6
            )


def test_the_sum_is_made_in_float32(base: Path, folder: Path) -> None:
    """Rounded once, however the model is loaded: W + delta, not the rounded W + delta."""
    exact = load_model(folder)[0].layers[1].mlp.down.kernel[...]
    half = load_model(folder, "bfloat16")[0].layers[1].mlp.down.kernel[...]
    np.testing.assert_array_equal(half, exact.astype(jnp.bfloat16))


def test_rank_stabilised_scale(theirs: transformers.PreTrainedModel, folder: Path) -> None:
    edit(folder, use_rslora=True)
    with_lora(theirs, load_file(folder / "adapter_model.safetensors"), SPEC.alpha / math.sqrt(SPEC.rank))
    np.testing.assert_allclose(logits_of(folder), oracle.logits(theirs, TOKENS), atol=1e-4)


def test_some_maps_of_some_layers(theirs: transformers.PreTrainedModel, folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors = {name: tensor.bfloat16() for name, tensor in tensors.items() if "layers.1.self_attn.v_proj" in name}
    assert len(tensors) == 2
    save_file(tensors, folder / "adapter_model.safetensors")
    with_lora(theirs, tensors, SPEC.alpha / SPEC.rank)
    np.testing.assert_allclose(logits_of(folder), oracle.logits(theirs, TOKENS), atol=1e-4)


def test_an_adapter_on_an_adapter(theirs: transformers.PreTrainedModel, folder: Path, tmp_path: Path) -> None:
    second = save_adapter(tmp_path / "second", tmp_path / "base", LoraSpec(2, 3.0, ("q_proj", "up_proj")))
    edit(second, base_model_name_or_path=str(folder))
    for lora, scale in ((folder, SPEC.scale), (second, 1.5)):
        for name, tensor in load_file(lora / "adapter_model.safetensors").items():
            if name.endswith("lora_A.weight"):
                b = load_file(lora / "adapter_model.safetensors")[name.replace("lora_A", "lora_B")]
                module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                with torch.no_grad():
                    theirs.get_submodule(module).weight += scale * b @ tensor
    np.testing.assert_allclose(logits_of(second), oracle.logits(theirs, TOKENS), atol=1e-4)
    edit(folder, base_model_name_or_path=str(second))
    with pytest.raises(UserError, match="the adapter is its own base"):
        load_model(second)


# The real library


@each_family
def test_peft_reads_ours(theirs: transformers.PreTrainedModel, base: Path, folder: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.PeftConfig.from_pretrained(folder)
    assert (config.r, config.lora_alpha, config.target_modules) == (4, 10, set(HF_TARGETS))
    assert config.base_model_name_or_path == str(base)
    model = peft.PeftModel.from_pretrained(theirs, folder).eval()
    np.testing.assert_allclose(logits_of(folder), oracle.logits(model, TOKENS), atol=1e-4)


@each_family
def test_we_read_theirs(theirs: transformers.PreTrainedModel, base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules="all-linear", lora_dropout=0.1, task_type="CAUSAL_LM",
        init_lora_weights=False, use_rslora=True,
    )  # fmt: skip
    model = peft.get_peft_model(theirs, config).eval()
    model.save_pretrained(tmp_path / "theirs")
    edit(tmp_path / "theirs", base_model_name_or_path=str(base))
    np.testing.assert_allclose(logits_of(tmp_path / "theirs"), oracle.logits(model, TOKENS), atol=1e-4)


# Folders


def test_it_says_that_a_base_is_loaded(folder: Path, base: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_model(folder)
    assert f"{folder} is an adapter: it is added to its base {base}" in caplog.text


def test_its_own_tokenizer_wins(folder: Path) -> None:
    tokenizer = oracle.tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save(folder)
    assert load_model(folder)[1].chat_template == tokenizer.chat_template


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type 'LOHA' is not supported"),
        ({"use_dora": True}, "not supported: use_dora = True$"),
        ({"bias": "all"}, "not supported: bias = 'all'$"),
        ({"modules_to_save": ["lm_head"]}, r"not supported: modules_to_save = \['lm_head'\]$"),
        ({"rank_pattern": {"q": 1}, "alpha_pattern": {"q": 1}}, "alpha_pattern = .*, rank_pattern = "),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"revision": "v2"}, "revision = 'v2'"),
        ({"a_field_of_tomorrow": 1}, "a_field_of_tomorrow = 1"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is missing"),
        ({"base_model_name_or_path": "/no/where"}, "the base of this adapter: /no/where: no such folder"),
        ({"r": 0}, "adapter_config.json: r is 0, it must be a whole number of at least 1$"),
        ({"r": float("inf")}, "adapter_config.json: r is inf"),
        ({"r": 2.5}, "adapter_config.json: r is 2.5"),
        ({"r": None}, "adapter_config.json: r is missing"),
        ({"lora_alpha": float("nan")}, "adapter_config.json: lora_alpha is nan, it must be a number"),
        ({"lora_alpha": 10**400}, "adapter_config.json: lora_alpha is 1000"),
        ({"lora_alpha": "16"}, "adapter_config.json: lora_alpha is '16'"),
        ({"use_rslora": "yes"}, "adapter_config.json: use_rslora is 'yes', it must be true or false"),
        ({"r": 8}, r"does not fit its base; wrong shape: .* \[4, 32\] instead of \[8, 32\]"),
    ],
)
def test_what_is_not_supported_is_named(folder: Path, fields: dict[str, object], message: str) -> None:
    edit(folder, **fields)
    with pytest.raises(UserError, match=message) as error:
        load_model(folder)
    assert "\n" not in str(error.value)


def test_tensors_that_do_not_fit(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    a = tensors.pop(FIRST_A)
    tensors["base_model.model.lm_head.lora_A.weight"] = a
    save_file(tensors, path)
    with pytest.raises(UserError) as error:
        load_model(folder)
    assert f"missing: {FIRST_A}; not a linear map of this base's layers: base_model.model.lm_head" in str(
        error.value
    )
    save_file({}, path)
    with pytest.raises(UserError, match="it holds no matrices"):
        load_model(folder)
    path.rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin is not read"):
        load_model(folder)


def test_a_base_whose_head_is_not_its_embedding_keeps_it(
    theirs: transformers.PreTrainedModel, base: Path, folder: Path
) -> None:
    """The base says tied and is not: its head counts under an adapter, too."""
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": True}))
    with_lora(theirs, load_file(folder / "adapter_model.safetensors"), SPEC.alpha / SPEC.rank)
    np.testing.assert_allclose(logits_of(folder), oracle.logits(theirs, TOKENS), atol=1e-4)


def test_a_folder_with_a_model_and_an_adapter(base: Path, folder: Path) -> None:
    (folder / "adapter_config.json").rename(base / "adapter_config.json")
    with pytest.raises(UserError, match="holds both a model and an adapter"):
        load_model(base)
