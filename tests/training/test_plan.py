"""`--plan`: what each device would hold, on meshes larger than this machine; against arrays that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from support import processes, tiny_training
from thinkprm_jax.distributed.mesh_option import parse_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.training import plan
from thinkprm_jax.training.config import ModelSource
from thinkprm_jax.training.plan import model_shapes, parse_memory
from thinkprm_jax.training.setup import parameter_count

MODEL = {
    "tokenizer": "mini",
    "dtype": "bfloat16",
    "scratch": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_layers": 6,
        "num_heads": 4,
        "num_kv_heads": 2,
    },
}
DATA = {"train": {"arithmetic": {"examples": 60}}, "buckets": [256], "rows": 16}


def run(program: str, recipe: Path, *arguments: str) -> dict:
    """What a program that plans prints as JSON; it runs alone, since JAX must not have started before."""
    return processes.answer(f"{PREPARE}{program}", recipe, *arguments, devices=None)


PREPARE = """
import dataclasses, json, sys
import jax
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.training import plan, setup
from thinkprm_jax.training.config import TrainRecipe

plan.DEPTHS = (1, 3)

def load(*overrides):
    return load_recipe(TrainRecipe, sys.argv[1], [*sys.argv[2:], *overrides])

def temporaries(recipe, sizes, **options):
    return plan.make_plan(recipe, sizes, **options).memory.temporaries

"""

STATE = """
plan.DEPTHS = (1, 2)
recipe, sizes = load(), {"data": 2, "fsdp": 2, "tensor": 2}
made = plan.make_plan(recipe, sizes)
nothing = len(jax.live_arrays())
trainer = setup.make_trainer(recipe, setup.read_model(recipe.model)[0], 10, plan.make_mesh(**sizes))
state = trainer.init(0)

def held(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))

print(json.dumps({"plan": made.to_json(), "nothing": nothing, "weights": held(state.params),
                  "optimizer": held(state.opt_state)}))
"""

COMPARED = """
sizes, few = {"data": 1, "fsdp": 4, "tensor": 2}, "model.scratch.num_layers=3"
print(json.dumps({
    "by depth": temporaries(load("model.remat=layer"), sizes),
    "exact": temporaries(load("model.remat=layer"), sizes, exact=True),
    "layer": temporaries(load("model.remat=layer", few), sizes),
    "none": temporaries(load("model.remat=none", few), sizes),
    "products": temporaries(load("model.remat=products", few), sizes),
    "parts": temporaries(load("model.remat=layer", "micro_batches=4", few), sizes),
}))
"""

OF_THE_RUN = """
def of_the_run(recipe):
    mesh = setup.make_run_mesh(recipe)
    config = setup.read_model(recipe.model)[0]
    execution = setup.choose_execution(recipe, config, "cpu")[0]
    trainer = setup.make_trainer(recipe, config, 10, mesh, execution)
    compiled = trainer.lower(16, 256, packed=False).compile()
    return compiled.memory_analysis().temp_size_in_bytes

def promised(recipe):
    memory = plan.make_plan(recipe, exact=True).memory
    return memory.temporaries + memory.gradients

both = {remat: load(f"model.remat={remat}", "model.scratch.num_layers=3") for remat in ("none", "layer")}
print(json.dumps({remat: [promised(recipe), of_the_run(recipe)] for remat, recipe in both.items()}))
"""

TOO_MUCH = """
import contextlib, io
said, recipe = io.StringIO(), load("model.scratch.num_layers=2")
made = plan.make_plan(recipe, {"data": 2, "fsdp": 1, "tensor": 1}, plan.parse_memory("40MB"))
plan.make_plan = lambda *_: made
with contextlib.redirect_stdout(said):
    status = plan.main(recipe)
enough = dataclasses.replace(made, device_memory=plan.parse_memory("4GB"))
print(json.dumps({"status": status, "said": said.getvalue(), "plan": made.to_json(), "fits": enough.fits}))
"""

PAPER = """
plan.DEPTHS = (1, 2)
made = plan.make_plan(load("data.buckets=[512]"), {"data": 1, "fsdp": 4, "tensor": 4})
print(json.dumps({**made.to_json(), "table": made.table()}))
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tiny_training.write_recipe(
        tmp_path, model=MODEL, data=DATA, optimizer={"name": "adamw", "learning_rate": 1e-3}
    )


@pytest.mark.slow
def test_the_state_is_what_real_arrays_hold(recipe: Path) -> None:
    found = run(STATE, recipe)
    memory = found["plan"]["memory"]
    assert found["nothing"] == 0
    assert (memory["weights"], memory["optimizer"]) == (found["weights"], found["optimizer"])
    assert memory["batch"] == 16 * 256 * 3 * 4 // 4  # rows over data x fsdp
    assert memory["gradients"] == memory["weights"]
    assert memory["total"] == sum(size for name, size in memory.items() if name != "total")


@pytest.mark.slow
def test_temporaries(recipe: Path) -> None:
    found = run(COMPARED, recipe)
    assert found["by depth"] == pytest.approx(found["exact"], rel=0.05)
    # Rematerialisation and micro-batches count, which XLA for CPUs by its own choice would undo.
    assert found["layer"] < 0.8 * found["products"] < 0.8 * found["none"]
    assert found["parts"] < 0.8 * found["layer"]


@pytest.mark.slow
def test_a_run_on_a_cpu_takes_what_its_plan_says(recipe: Path) -> None:
    found = run(OF_THE_RUN, recipe)
    for promised, taken in found.values():
        assert taken == pytest.approx(promised, rel=0.05)
    assert found["layer"][1] < 0.6 * found["none"][1]


@pytest.mark.slow
def test_what_does_not_fit_is_said_with_what_would_help(recipe: Path) -> None:
    found = run(TOO_MUCH, recipe, "micro_batches=2")
    total, changes = found["plan"]["memory"]["total"], found["plan"]["changes"]
    assert found["status"] == 1
    assert found["plan"]["fits"] is False
    assert found["fits"] is True
    assert f"does NOT fit into 0.04 GB: {total / 1e9 - 0.04:.2f} GB too much" in found["said"]
    assert {"model.remat=layer", "micro_batches=8", "mesh fsdp=2"} <= set(changes)
    assert all(size < total for size in changes.values())
    assert min(changes, key=changes.get).startswith("both")


@pytest.mark.slow
def test_the_7b_recipe_on_sixteen_devices() -> None:
    found = run(PAPER, processes.ROOT / "configs" / "train" / "r1_distill_7b.yaml")
    assert found["parameters"] == found["trained"] == 7_615_616_512
    assert found["mesh"] == {"data": 1, "fsdp": 4, "tensor": 4}
    whole = 4 * found["parameters"]
    assert whole / 16 <= found["memory"]["weights"] < 1.001 * whole / 16  # norms and some biases are copied
    assert found["memory"]["optimizer"] == pytest.approx(2 * found["memory"]["weights"], rel=1e-6)
    assert found["depths"] == [1, 2]
    for text in ("7,615,616,512 parameters", "shapes as written down in this package", "compiled for CPUs"):
        assert text in found["table"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1_777_088_000),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7_615_616_512),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", 14_770_033_664),
        ("Qwen/QwQ-32B-Preview", 32_763_876_352),
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-8B", 8_190_735_360),
    ],
)
def test_written_down_shapes(name: str, parameters: int) -> None:
    """The parameter counts are those that the hub shows."""
    config, _ = model_shapes(ModelSource(pretrained=name))
    d, heads, kv_heads = (
        config.hidden_size,
        config.num_heads * config.head_dim,
        config.num_kv_heads * config.head_dim,
    )
    layer = 2 * d * heads + 2 * d * kv_heads + 3 * d * config.intermediate_size + 2 * d
    layer += 2 * config.head_dim if config.qk_norm else heads + 2 * kv_heads  # norms of q and k, or biases
    tables = 1 if config.tie_embeddings else 2
    assert config.num_layers * layer + tables * d * config.vocab_size + d == parameters
    assert parameter_count(config) == parameters


def test_the_recipes_of_the_paper_have_shapes() -> None:
    for file in sorted((processes.ROOT / "configs" / "train").glob("*.yaml")):
        source = yaml.safe_load(file.read_text(encoding="utf-8"))["model"]
        # The small models go on from one another: the folder of an earlier run.
        if "pretrained" in source and not source["pretrained"].startswith("runs/"):
            assert model_shapes(ModelSource(pretrained=source["pretrained"]))[0].model_type == "qwen2"


def test_meshes_and_memory_as_written() -> None:
    assert parse_mesh("fsdp=4, tensor=2") == {"data": 1, "fsdp": 4, "tensor": 2}
    assert parse_memory("16GB") == 16_000_000_000
    assert parse_memory("15.75 GiB") == int(15.75 * 2**30)
    for text, message in (
        ("tensors=4", "there is no axis 'tensors'; did you mean tensor"),
        ("fsdp=0", "fsdp needs a positive number, not '0'"),
        ("fsdp", "fsdp needs a positive number, not ''"),
    ):
        with pytest.raises(UserError, match=message):
            parse_mesh(text)
    for text in ("16", "GB", "16 apples", "-1GB"):
        with pytest.raises(UserError, match=r"--device-memory .*: give a number with a unit, such as 16GB"):
            parse_memory(text)


@pytest.mark.parametrize(
    ("name", "asked"),
    [("v4:2x2x1", {"chip_config_name": "megacore"}), ("v5p:2x2x1", {}), ("v5e:4x4", {}), ("v3:2x2", {})],
)
def test_a_chip_is_as_many_devices_as_jax_makes_of_it(monkeypatch, name, asked):
    """libtpu 0.0.52 describes 8 devices of v4:2x2x1, and with megacore the 4 that JAX runs; of the others what JAX
    runs without being asked."""
    from jax.experimental import topologies

    seen = []

    class Topology:
        devices = ("a device",)

    def describe(topology: str, platform: str, **options: str) -> Topology:
        seen.append((topology, platform, options))
        return Topology()

    monkeypatch.setattr(topologies, "get_topology_desc", describe)
    assert plan._tpu_topology(name) == ("a device",)
    assert seen == [(name, "tpu", asked)]
