"""What top-p and top-k cost beside the greedy choice: alone, in a decode step, and as a TPU's compiler sees it.

    python benchmarks/sampling.py [--model FOLDER]        this machine: 16 rows, a vocabulary of 151,936
    python benchmarks/sampling.py --topology v5e:2x2      a decode call of the 1.5B shape; needs libtpu, no TPU

alone     logits that are made up: peaked ones, as a language model's are (their nucleus is a few tokens), and flat
          ones (a nucleus of most of the vocabulary, which no list of candidates holds)
step      the sampler on a real model, or on random weights of the shape of a 0.5B whose last norm is scaled so
          that logits are peaked; its time over the decode steps that it counts. New prompts in every run
topology  cycles that the compiler estimates for a step: what it assumes, no measurement. top-p "in the candidates"
          takes the cheap branch where a condition on the data decides, "beyond them" the dear one

All settings take turns; the tables show medians, wall and CPU (of all cores), and their ratio to greedy.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import re
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from device_common import SHAPES, load_mini_tokenizer, random_model, shape_config
from flax import nnx
from rich.console import Console
from rich.table import Table

from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.model.cache import KVCache
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.quantization import Quantization
from thinkprm_jax.sampler import Sampler
from thinkprm_jax.sampler.device import Controls, device_functions
from thinkprm_jax.sampler.request import MAX_STOP_IDS, MAX_WATCHED
from thinkprm_jax.sampler.sampling import sample

VOCABULARY = 151_936
CHUNK = 32
CONSOLE = Console(width=110)
# The v5e's clock, of its published 197 TFLOP/s: 4 matrix units of 128 x 128 multiply-adds a cycle.
CYCLES_PER_SECOND = {"TPU v5 lite": 1.5e9}


@dataclasses.dataclass(frozen=True)
class Setting:
    name: str
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0


SETTINGS = (
    Setting("greedy"),
    Setting("temperature 0.6", 0.6),
    Setting("top-p 0.95", 0.6, 0.95),
    Setting("top-k 50", 0.6, 1.0, 50),
    Setting("top-p 0.95, top-k 50", 0.6, 0.95, 50),
)
Times = tuple[float, float]  # wall and CPU, milliseconds


def take_turns(runs: dict[str, Callable[[], Times]], repeats: int) -> dict[str, Times]:
    """Medians of each run, after a turn of each that is not counted."""
    times: dict[str, list[Times]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            result = run()
            if turn:
                times[name].append(result)
    return {name: _medians(values) for name, values in times.items()}


def _medians(values: Iterable[Times]) -> Times:
    wall, cpu = zip(*values, strict=True)
    return statistics.median(wall), statistics.median(cpu)


def show(title: str, times: dict[str, Times]) -> None:
    table = Table("setting", "wall ms", "CPU ms", "wall / greedy", title=title)
    (greedy, _), *_ = times.values()
    for name, (wall, cpu) in times.items():
        table.add_row(name, f"{wall:.2f}", f"{cpu:.2f}", f"{wall / greedy:.2f}x")
    CONSOLE.print(table)


def arguments_of(setting: Setting, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.full(batch, setting.temperature, np.float32),
        np.full(batch, setting.top_k, np.int32),
        np.full(batch, setting.top_p, np.float32),
    )


def alone(batch: int, repeats: int) -> None:
    """``sample`` on made-up logits."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**32, (batch, 2), np.uint32)
    positions = np.arange(batch, dtype=np.int32)
    draw = jax.jit(sample)
    for name, spread in (("peaked", 8.0), ("flat", 0.5)):
        logits = jnp.asarray(rng.normal(0, spread, (batch, VOCABULARY)).astype(np.float32))

        def run(setting: Setting, logits: jax.Array = logits) -> Times:
            controls = arguments_of(setting, batch)
            cpu, start = time.process_time(), time.perf_counter()
            for _ in range(5):
                draw(logits, *controls, keys, positions).block_until_ready()
            return 200 * (time.perf_counter() - start), 200 * (time.process_time() - cpu)

        runs = {setting.name: lambda setting=setting: run(setting) for setting in SETTINGS}
        sizes = nucleus_sizes(np.asarray(logits) / 0.6, 0.95)
        title = f"alone, {name} logits, {batch} x {VOCABULARY:,}; tokens in the nucleus: {sizes}"
        show(title, take_turns(runs, 2 * repeats))


def nucleus_sizes(logits: np.ndarray, top_p: float) -> str:
    weights = np.sort(np.exp(logits - logits.max(-1, keepdims=True)), -1)[:, ::-1]
    shares = np.cumsum(weights, -1) / weights.sum(-1, keepdims=True)
    sizes = (shares < top_p).sum(-1) + 1
    return f"{sizes.min():,} to {sizes.max():,}"


def step(folder: Path | None, batch: int, repeats: int, new_tokens: int) -> None:
    """Milliseconds of a decode step of the sampler. Prompts of 8 tokens go through the decode loop, too."""
    if folder is None:
        model, tokenizer = peaked_model(), load_mini_tokenizer()
    else:
        model, tokenizer = load_model(folder)
    sampler = Sampler(model, tokenizer, slots=batch, max_length=16 + new_tokens, chunk=CHUNK, drafts=0)
    rng = np.random.default_rng(0)

    def run(setting: Setting) -> Times:
        prompts = rng.integers(1, tokenizer.vocab_size, (batch, 8)).tolist()
        before = sampler.stats.decode_steps
        cpu, start = time.process_time(), time.perf_counter()
        sampler.generate(
            prompts,
            max_new_tokens=new_tokens,
            temperature=setting.temperature,
            top_p=setting.top_p,
            top_k=setting.top_k,
            seed=int(rng.integers(2**32)),
        )
        steps = sampler.stats.decode_steps - before
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        return 1e3 * wall / steps, 1e3 * cpu / steps

    # temperature alone looks at every logit, which neither greedy nor top-p does: it is told for comparison
    runs = {setting.name: lambda setting=setting: run(setting) for setting in SETTINGS}
    name = "random weights, 0.5B" if folder is None else folder.name
    title = f"a decode step, {name}, batch {batch}, vocabulary {model.config.vocab_size:,}, {model.dtype}"
    show(title, take_turns(runs, repeats))


def peaked_model() -> Decoder:
    config = dataclasses.replace(
        shape_config("tiny"), vocab_size=VOCABULARY, hidden_size=896, intermediate_size=4_864, num_layers=24,
        num_heads=14, tie_embeddings=True,
    )  # fmt: skip
    return random_model(config, "float32")


# What a TPU's compiler expects


def topology(name: str, slots: int, context: int, shape: str) -> None:
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # outside Google's cloud nobody answers
    from jax.experimental import topologies

    device = topologies.get_topology_desc(name, "tpu").devices[0]
    config = shape_config(shape)
    table = Table("setting", "cycles a step", "ms a step", "of greedy", "cycles after the loop")
    table.title = (
        f"{shape}, bfloat16, {slots} slots, {context} positions, {device.device_kind}: the compiler's estimate"
    )
    greedy = 0.0
    for setting in (SETTINGS[0], SETTINGS[2], SETTINGS[3]):
        start = time.process_time()
        program = HloProgram(compile_decode(config, device, setting, slots, context))
        print(f"{setting.name}: compiled in {time.process_time() - start:.0f} s of CPU")
        body, rest = program.loop()
        ways = (("", min),) if setting.temperature == 0 else ((" in the candidates", min), (" beyond them", max))
        for suffix, choose in ways:
            cycles = program.cycles(body, choose)
            greedy = greedy or cycles
            rate = CYCLES_PER_SECOND.get(device.device_kind)
            milliseconds = f"{1e3 * cycles / rate:.2f}" if rate else "-"
            after = f"{program.cycles(rest, choose, without=body):,.0f}"
            table.add_row(setting.name + suffix, f"{cycles:,.0f}", milliseconds, f"{cycles / greedy:.3f}x", after)
    CONSOLE.print(table)


def compile_decode(
    config: ModelConfig,
    device: jax.Device,
    setting: Setting,
    slots: int,
    context: int,
    quantization: Quantization | None = None,
) -> str:
    """The HLO text of a decode call with constant sampling settings, so that what they do not need is gone."""
    place = jax.sharding.SingleDeviceSharding(device)

    def placed(tree: object) -> object:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

    kinds = {"param_dtype": jnp.bfloat16, "dtype": jnp.bfloat16, "quantization": quantization}
    model = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), **kinds))
    graph, parameters = nnx.split(model)
    decode = device_functions(graph, None, CHUNK).decode
    cache = jax.eval_shape(lambda: KVCache.zeros(config, slots, context, CHUNK, jnp.bfloat16))
    controls = placed(empty_controls(slots))
    temperature, top_k, top_p = arguments_of(setting, slots)

    def call(parameters: nnx.State, cache: KVCache, controls: Controls) -> object:
        fixed = dataclasses.replace(controls, temperature=temperature, top_k=top_k, top_p=top_p)
        return decode(parameters, cache, fixed)

    # The code asks which backend it is for; this process has only the compiler of the one that it is for.
    with mock.patch("jax.default_backend", return_value="tpu"):
        lowered = jax.jit(call, donate_argnums=1).lower(placed(parameters), placed(cache), controls)
        return lowered.compile().as_text()


def empty_controls(slots: int) -> Controls:
    integer, real = np.zeros(slots, np.int32), np.zeros(slots, np.float32)
    values = {
        "pending": np.zeros((slots, CHUNK), np.int32),
        "active": np.zeros(slots, bool),
        "stop_ids": np.zeros((slots, MAX_STOP_IDS), np.int32),
        "watch": np.zeros((slots, MAX_WATCHED), np.int32),
        "temperature": real,
        "top_p": real,
        "keys": np.zeros((slots, 2), np.uint32),
        "leave_below": np.zeros((), np.int32),
        "drafts": None,
    }
    return Controls(**{field.name: values.get(field.name, integer) for field in dataclasses.fields(Controls)})


class HloProgram:
    """Computations of a compiled module, their own estimated cycles and what they call.

    Args:
      text: of the optimised module, with a TPU compiler's ``estimated_cycles``.
    """

    _HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
    _CALLS = re.compile(r"\b(body|condition|true_computation|false_computation|to_apply|calls)=%?([\w.\-]+)")

    def __init__(self, text: str) -> None:
        self.own: dict[str, float] = collections.defaultdict(float)
        self.whiles: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
        self.choices: dict[str, list[list[str]]] = collections.defaultdict(list)
        self.calls: dict[str, list[str]] = collections.defaultdict(list)
        self._constants: dict[str, int] = {}
        self._limits: dict[str, int] = {}  # of conditions that compare a counter with a constant
        self.entry = current = ""
        for line in text.splitlines():
            if head := self._HEAD.match(line):
                current = head[2]
                self.entry = current if head[1] else self.entry
            elif current and " = " in line:
                self._note_limit(current, line)
                self._add(current, line)

    def _note_limit(self, computation: str, line: str) -> None:
        if constant := re.search(r"%([\w.\-]+) = [su]32\[\]\S* constant\((\d+)\)", line):
            self._constants[f"{computation} {constant[1]}"] = int(constant[2])
        elif compared := re.search(r"ROOT .* compare\(%[\w.\-]+, %([\w.\-]+)\), direction=LT", line):
            limit = self._constants.get(f"{computation} {compared[1]}")
            if limit is not None:
                self._limits[computation] = limit

    def _add(self, computation: str, line: str) -> None:
        if cycles := re.search(r'"estimated_cycles":"?(\d+)', line):
            self.own[computation] += int(cycles[1])
            return  # a fusion's parts are in its own figure
        called = dict(self._CALLS.findall(line))
        if " while(" in line:
            count = re.search(r'"known_trip_count":\{"n":"?(\d+)', line)
            known = int(count[1]) if count else self._limits.get(called["condition"], 1)
            self.whiles[computation].append((called["body"], known))
        elif " conditional(" in line:
            several = re.search(r"branch_computations=\{([^}]*)\}", line)
            branches = several[1].replace("%", "").split(", ") if several else []
            branches = branches or [called["true_computation"], called["false_computation"]]
            self.choices[computation].append(branches)
        elif " call(" in line and "to_apply" in called:
            self.calls[computation].append(called["to_apply"])

    def loop(self) -> tuple[str, str]:
        """(body of the decode loop, entry): the loop with the most cycles among those of the entry."""
        bodies = [body for body, _ in self.whiles[self.entry]]
        return max(bodies, key=lambda body: self.cycles(body, max)), self.entry

    def cycles(self, computation: str, choose: Callable, without: str = "") -> float:
        """Of one run of a computation and all that it calls; ``choose`` picks the branch of a condition."""
        if computation == without:
            return 0.0
        total = self.own[computation]
        total += sum(n * self.cycles(body, choose, without) for body, n in self.whiles[computation])
        total += sum(self.cycles(name, choose, without) for name in self.calls[computation])
        for branches in self.choices[computation]:
            total += choose(self.cycles(branch, choose, without) for branch in branches)
        return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a Hugging Face folder; default: random weights of a 0.5B")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["alone", "step"], help="one of the two tables of this machine")
    parser.add_argument("--topology", metavar="v5e:2x2")
    parser.add_argument("--slots", type=int, default=64, help="of the estimate (default: 64)")
    parser.add_argument("--context", type=int, default=2_048, help="positions, of the estimate (default: 2048)")
    parser.add_argument("--shape", choices=list(SHAPES), default="1.5b", help="of the estimate")
    options = parser.parse_args()
    if options.topology:
        topology(options.topology, options.slots, options.context, options.shape)
        return
    if options.only != "step":
        alone(options.batch, options.repeats)
    if options.only != "alone":
        step(options.model, options.batch, options.repeats, options.new_tokens)


if __name__ == "__main__":
    main()
