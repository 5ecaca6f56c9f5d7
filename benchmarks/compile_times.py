"""How long a TPU's compiler takes for a training step, what the step then holds, and what options of it change.

    python benchmarks/compile_times.py configs/train/r1_distill_1.5b.yaml --topology v5e:2x2 --mesh fsdp=4 \\
        [field=value ...] [--layers 8] [--options "" "xla_tpu_scoped_vmem_limit_kib=65536" "a=true b=true"]

A line for each set of options: seconds of wall and CPU in the compiler; the step's bytes on a device (what it is
given, its temporaries, its code); the cycles that the compiler estimates (not of Pallas kernels): what it assumes,
no measurement; how many collectives run beside products (asynchronous fusions); the most bytes that this process
has had so far; and the program's hash: equal ones are the same program. Needs libtpu, no TPU. No cache is asked.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import re
import resource
import time
from importlib.metadata import version
from pathlib import Path

import jax
from sampling import HloProgram

from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.distributed.mesh_option import parse_mesh
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.training import plan, setup
from thinkprm_jax.training.config import TrainRecipe
from thinkprm_jax.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="field=value")
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--mesh", default="fsdp=4")
    parser.add_argument("--layers", type=int, help="of the model (default: its own)")
    parser.add_argument("--options", nargs="+", default=[""], help="of the compiler, a set in each argument")
    parser.add_argument("--hlo", type=Path, help="a file for the text of the last program")
    arguments = parser.parse_intermixed_args()
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # outside Google's cloud nobody answers
    jax.config.update("jax_platforms", "cpu")
    recipe = load_recipe(TrainRecipe, arguments.recipe, arguments.overrides)
    trainer, kernel = make_trainer(recipe, arguments.topology, arguments.mesh, arguments.layers)
    bucket = recipe.data.buckets[-1]
    rows = trainer.filled_rows(recipe.data.rows_of(bucket))
    started = time.perf_counter()
    lowered = trainer.lower(rows, bucket, recipe.data.packing)
    traced = time.perf_counter() - started
    names = ("jax", "jaxlib", "libtpu")
    print(", ".join(f"{name} {version(name)}" for name in names))
    print(f"{trainer.config.num_layers} layers, {rows} rows x {bucket}, remat {recipe.model.remat}, {kernel}")
    print(f"traced in {traced:.1f} s; StableHLO of {len(lowered.as_text()) / 1e6:.1f} MB")
    widths = {"wall s": 8, "CPU s": 8, "given GB": 10, "temp. GB": 10, "code MB": 9, "Mcycles": 10, "async": 7}
    heads = "".join(f"{name:>{width}}" for name, width in widths.items())
    print(f"{heads}{'host GB':>9} {'program':8} options")
    for options in arguments.options:
        report(lowered, options, arguments.hlo)


def make_trainer(recipe: TrainRecipe, topology: str, mesh: str, layers: int | None) -> tuple[Trainer, str]:
    """The recipe's trainer on devices that need not exist, and in words which kernels it takes."""
    from jax.experimental import topologies

    config = plan.model_shapes(recipe.model)[0]
    config = config if layers is None else dataclasses.replace(config, num_layers=layers)
    devices = topologies.get_topology_desc(topology, "tpu").devices
    sizes = {"data": 1, "fsdp": 1, "tensor": 1, **(parse_mesh(mesh) or {})}
    execution, kernel = setup.choose_execution(recipe, config, "tpu")
    choices = (0, 1) if recipe.task == "discriminative" else None
    there = make_mesh(**sizes, devices=devices)
    return setup.make_trainer(recipe, config, 1000, there, execution, choices), kernel


def report(lowered: jax.stages.Lowered, options: str, file: Path | None) -> None:
    given = dict(option.split("=", 1) for option in options.split())
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        compiled = lowered.compile(compiler_options=given)
    except Exception as error:  # an option that it does not know, a program that does not fit: whatever it says
        print(f"refused after {time.perf_counter() - wall:.1f} s: {str(error).splitlines()[0][:160]}  {options}")
        return
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    text = compiled.as_text()
    program = HloProgram(text)
    memory = compiled.memory_analysis()
    unshared = max(memory.output_size_in_bytes - memory.alias_size_in_bytes, 0)
    print(
        f"{wall:8.1f}{cpu:8.1f}{memory.argument_size_in_bytes / 1e9:10.3f}"
        f"{(memory.temp_size_in_bytes + unshared) / 1e9:10.3f}{memory.generated_code_size_in_bytes / 1e6:9.1f}"
        f"{program.cycles(program.entry, max) / 1e6:10.1f}{len(_ASYNCHRONOUS.findall(text)):7}"
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:9.2f} {digest(text)} {options or '-'}",
        flush=True,
    )
    if file is not None:
        file.write_text(text)


_ASYNCHRONOUS = re.compile(
    r'custom_call_target="AsyncCollectiveStart"|(?:all-gather|all-reduce|reduce-scatter|collective-permute)-start\('
)


def digest(text: str) -> str:
    """Of what is computed: names of source lines are no part of it."""
    computations = text[re.search(r"^(?:ENTRY )?%", text, re.MULTILINE).start() :]
    plain = re.sub(r", metadata=\{[^}]*\}", "", computations)
    return hashlib.blake2b(plain.encode(), digest_size=4).hexdigest()


if __name__ == "__main__":
    main()
