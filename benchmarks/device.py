"""What an accelerator does with one shape and random weights, beside what its memory and its products allow.

    bash benchmarks/device.sh OUT                     all of it, in under 8 minutes; OUT/device.json, OUT/device.md
    python benchmarks/device.py PART OUT [--shape 1.5b] [--batches 1 64 128] [--context 2048] ...

machine  bandwidth (reading a large array; copying it) and bfloat16 products of 8,192 x 8,192, measured here
parity   bfloat16 and float32 logits against transformers' float32, and greedy float32 tokens; where there is no
         torch, bfloat16 against our own float32
decode   seconds a step from two runs that differ in their number of new tokens only: prefill and compilation
         cancel out. The ceiling is the bytes of a step over the measured bandwidth; read are all weights but the
         embedding table, and the keys and values of the context of every row. prefill: prompt tokens over the
         seconds of runs that generate one token a prompt
sampling the same step with top-p and top-k beside greedy, and with drafts where the sampler has them (random
         weights say little about how many drafts are taken: this is what a wider step costs)
train    a training step: tokens/s, share of the peak (MFU), peak memory beside what --plan expects
peer     transformers' generate on the same device: decode and prefill
table    OUT/device.md, of the figures in OUT/device.json

Every figure is written as soon as it is had, so that a part that is stopped keeps those it has. New prompts in
every run. ``--tiny`` tries every part anywhere in a minute or two; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from device_common import SHAPES, Figures, Trial, load_mini_tokenizer, random_model, read_rows, shape_config, short
from device_peers import parity, peer

if TYPE_CHECKING:  # the train part plans before JAX starts, and the peer part has no need of it
    from thinkprm_jax.model.config import ModelConfig
    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

RECIPE = Path(__file__).parents[1] / "configs/train/r1_distill_1.5b.yaml"
GOALS = {1: 0.60, 64: 0.70, 128: 0.70}  # of the ceiling, by batch
MFU_GOAL, TOP_P_GOAL = 0.50, 1.15


# Parts


def weight_count(config: ModelConfig) -> int:
    from thinkprm_jax.model.parameters import parameter_shapes

    return sum(int(np.prod(shape)) for shape in parameter_shapes(config).values())


def step_bytes(config: ModelConfig, itemsize: int, batch: int, context: int) -> int:
    """Bytes that one decode step has to read."""
    table = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * context
    return itemsize * (weight_count(config) - table + batch * cache)


def machine(trial: Trial) -> None:
    import jax
    import jax.numpy as jnp

    figures = Figures(trial.out, "machine")
    figures.add("device", jax.devices()[0].device_kind)
    figures.add("jax", jax.__version__)
    # At least the caches of the chip are left behind.
    count = 2**24 if trial.tiny else 2**31
    x = jnp.ones((count,), jnp.bfloat16)
    read = count * 2 / fastest(jax.jit(lambda x: jnp.max(x.reshape(1024, -1), axis=1)), x)
    copied = 2 * count * 2 / fastest(jax.jit(lambda x: x * jnp.bfloat16(2)), x)
    figures.add("bandwidth, reading", read / 1e9, "GB/s")
    figures.add("bandwidth, reading and writing", copied / 1e9, "GB/s")
    figures.add(
        "bandwidth", max(read, copied) / 1e9, "GB/s", note="the larger one is the ceiling of a decode step"
    )
    del x
    size = 512 if trial.tiny else 8_192
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    product = 2 * size**3 / fastest(jax.jit(lambda a: a @ a), a)
    figures.add(f"bfloat16 products, {size} x {size}", product / 1e12, "TFLOP/s")


def fastest(function: Callable, argument: Any, repeats: int = 10) -> float:
    """Seconds of a call; after two that are not counted, the median."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        function(argument).block_until_ready()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def decode(trial: Trial) -> None:
    figures = Figures(trial.out, "decode")
    config = shape_config(trial.shape)
    model, tokenizer = random_model(config, "bfloat16"), load_mini_tokenizer()
    figures.add("parameters", weight_count(config))
    for batch in trial.batches:
        sampler = make_sampler(trial, model, tokenizer, batch)
        step, prefill = times_of(trial, sampler, batch)
        context = trial.context + sum(trial.new_tokens) // 2
        figures.add(f"batch {batch}: a step", 1e3 * step, "ms")
        figures.add(f"batch {batch}: decode", batch / step, "tokens/s")
        if trial.bandwidth:
            ceiling = step_bytes(config, 2, batch, context) / trial.bandwidth
            goal = f"{GOALS[batch]:.0%}" if batch in GOALS else ""
            figures.add(f"batch {batch}: share of the ceiling", ceiling / step, "", 1e3 * ceiling, goal)
        figures.add(f"batch {batch}: prefill", batch * trial.context / prefill, "tokens/s")
        del sampler
        gc.collect()


def make_sampler(trial: Trial, model: Decoder, tokenizer: Tokenizer, batch: int, **settings: Any) -> Sampler:
    from thinkprm_jax.sampler import Sampler

    room = trial.context + trial.new_tokens[1] + 1
    settings.setdefault("drafts", 0)  # random weights repeat themselves
    return Sampler(model, tokenizer, slots=batch, max_length=room, **settings)


def times_of(trial: Trial, sampler: Sampler, batch: int, **setting: Any) -> tuple[float, float]:
    """Seconds of a decode step, and of a run that prefills and samples one token a prompt."""
    few, many, first = [], [], []
    rng = np.random.default_rng(batch)
    for _ in range(trial.repeats + 1):
        for new_tokens, times in zip((1, *trial.new_tokens), (first, few, many), strict=True):
            # New prompts each time: a prompt that a slot still holds would not be prefilled again.
            prompts = rng.integers(1, 1_000, (batch, trial.context)).tolist()
            times.append(run_seconds(sampler, prompts, new_tokens, **setting))
    step = (statistics.median(many[1:]) - statistics.median(few[1:])) / (trial.new_tokens[1] - trial.new_tokens[0])
    return step, statistics.median(first[1:])


def run_seconds(sampler: Sampler, prompts: list[list[int]], new_tokens: int, **setting: Any) -> float:
    from thinkprm_jax.sampler import Request, Think

    def script() -> Any:
        yield Think(new_tokens)

    start = time.perf_counter()
    for _ in sampler.run([Request(prompt, script, **setting) for prompt in prompts]):
        pass
    return time.perf_counter() - start


def sampling(trial: Trial) -> None:
    figures = Figures(trial.out, "sampling")
    batch = min(64, max(trial.batches))
    model, tokenizer = random_model(shape_config(trial.shape), "bfloat16"), load_mini_tokenizer()
    sampler = make_sampler(trial, model, tokenizer, batch)
    greedy, _ = times_of(trial, sampler, batch)
    figures.add(f"batch {batch}: greedy", 1e3 * greedy, "ms a step")
    for name, setting in (
        ("top-p 0.95", {"temperature": 0.6, "top_p": 0.95}),
        ("top-k 50", {"temperature": 0.6, "top_k": 50}),
    ):
        step, _ = times_of(trial, sampler, batch, **setting)
        figures.add(f"batch {batch}: {name}", 1e3 * step, "ms a step")
        figures.add(f"batch {batch}: {name} / greedy", step / greedy, goal=f"at most {TOP_P_GOAL}")
    del sampler
    gc.collect()
    for size in sorted({1, batch}):
        for value in (0, 7):
            sampler = make_sampler(trial, model, tokenizer, size, drafts=value)
            step, _ = times_of(trial, sampler, size)
            figures.add(f"batch {size}: drafts {value}", size / step, "tokens/s", note=str(_draft_counts(sampler)))
            del sampler
            gc.collect()


def _draft_counts(sampler: Sampler) -> dict[str, int]:
    fields = dataclasses.asdict(sampler.stats)
    return {name: fields[name] for name in fields if "draft" in name or "accept" in name or name == "decode_steps"}


def train(trial: Trial) -> None:
    from thinkprm_jax.data.batches import TokenisedExample, lay_out
    from thinkprm_jax.recipe import load_recipe
    from thinkprm_jax.training import setup
    from thinkprm_jax.training.config import TrainRecipe
    from thinkprm_jax.training.flops import known_device, step_flops
    from thinkprm_jax.training.plan import make_plan, model_shapes

    figures = Figures(trial.out, "train")
    rows, length = (2, 256) if trial.tiny else (8, 4_096)
    changes = [f"data.rows={rows}", f"data.buckets=[{length}]", f"data.examples={rows}"]
    changes += ["model.pretrained=mini"] if trial.tiny else []
    recipe = load_recipe(TrainRecipe, RECIPE, changes)
    one = {"data": 1, "fsdp": 1, "tensor": 1}
    plan = make_plan(recipe, one, exact=trial.tiny)  # before anything else starts JAX

    import jax

    from thinkprm_jax.distributed.mesh import make_mesh

    config, _ = model_shapes(recipe.model)
    device = jax.devices()[0]
    execution, attention = setup.choose_execution(recipe, config, device.platform)
    trainer = setup.make_trainer(recipe, config, 100, make_mesh(**one, devices=[device]), execution)
    figures.add("step", f"{rows} rows of {length:,}, remat {recipe.model.remat}, {attention}")
    figures.add("plan", plan.memory.total / 1e9, "GB", note=plan.compiler)
    state = trainer.init(0)
    rng, seconds = np.random.default_rng(0), []
    for step in range(3 if trial.tiny else 8):
        ids = rng.integers(1, 1_000, (rows, length + 1)).astype(np.int32)
        examples = [[TokenisedExample(row, np.ones(length + 1, np.float32))] for row in ids]
        batch = lay_out(examples, rows, length, recipe.data.packing)
        arrays = trainer.place(batch)
        start = time.perf_counter()
        state, metrics = trainer.train_step(state, arrays)
        loss = float(metrics["loss"])
        if step:  # the first one compiles
            seconds.append(time.perf_counter() - start)
    taken = statistics.median(seconds)
    figures.add("tokens", batch.real_tokens / taken, "tokens/s", note=f"{taken:.3f} s a step, loss {loss:.2f}")
    known = known_device(device.device_kind)
    if known is not None:
        mfu = step_flops(config).of(batch) / (taken * known.peak)
        figures.add("MFU", mfu, goal=f"{MFU_GOAL:.0%}", note="dense bfloat16 peak as its maker publishes it")
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    if peak is None:
        figures.add("peak memory", "not told", note=f"{device.device_kind} reports none")
    else:
        figures.add("peak memory", peak / 1e9, "GB", limit=plan.memory.total / 1e9)
        figures.add("plan / peak memory", plan.memory.total / peak)


def table(trial: Trial) -> None:
    """device.md of all parts that have run."""
    rows = read_rows(trial.out)
    lines = ["| part | figure | value | limit | goal | note |", "|---|---|---|---|---|---|"]
    for row in rows:
        value = f"{short(row['value'])} {row['unit']}".rstrip()
        extra = short(row.get("limit", "")), row.get("goal", ""), row.get("note", "")
        lines.append(
            "| " + " | ".join(cell.replace("|", "/") for cell in (row["part"], row["name"], value, *extra)) + " |"
        )
    missing = [name for name in PARTS if name != "table" and all(row["part"] != name for row in rows)]
    lines += ["", f"Without figures: {', '.join(missing)}."] if missing else []
    (trial.out / "device.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


PARTS: dict[str, Callable[[Trial], None]] = {
    "machine": machine,
    "parity": parity,
    "decode": decode,
    "sampling": sampling,
    "train": train,
    "peer": peer,
    "table": table,
}


def measured_bandwidth(out: Path) -> float:
    return next((1e9 * row["value"] for row in read_rows(out) if row["name"] == "bandwidth"), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=list(SHAPES), default="1.5b")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 128])
    parser.add_argument("--context", type=int, default=2_048)
    parser.add_argument("--bandwidth", type=float, help="GB/s (default: what the machine part measured)")
    parser.add_argument("--new-tokens", type=int, nargs=2, default=[33, 161])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="small shapes and few tokens")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bandwidth = 1e9 * options.bandwidth if options.bandwidth else measured_bandwidth(options.out)
    trial = Trial(
        options.out, options.shape, tuple(options.batches), options.context, tuple(options.new_tokens),
        options.repeats, bandwidth, options.tiny,
    )  # fmt: skip
    if options.tiny:
        trial = dataclasses.replace(trial, shape="tiny", batches=(1, 4), context=96, new_tokens=(2, 10), repeats=1)
    PARTS[options.part](trial)


if __name__ == "__main__":
    sys.exit(main())
