"""`thinkprm collect RECIPE [field=value ...]`: verification chains from a teacher, filtered by step labels.

The run lives in the recipe's ``output`` folder: recipe.yaml (resolved), generations.jsonl (every chain as it
came), chains.jsonl (what is kept, for `thinkprm train`), decisions.jsonl, report.json and lengths.png. Started
again with the same recipe, it goes on where it was, even after kill -9; with other ``filter`` fields, the stored
generations are filtered anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax import program

if TYPE_CHECKING:
    from thinkprm_jax.collect.filters import Collection
    from thinkprm_jax.collect.recipe import CollectRecipe, Teacher
    from thinkprm_jax.data.prm800k import Prefix
    from thinkprm_jax.sampler import Sampler

DESCRIPTION = (
    "Lets a teacher verify labelled solution prefixes and keeps the chains whose verdicts agree with the labels. "
    "The run lives in the recipe's output folder; started again with the same recipe, it goes on where it was. "
    "docs/collection.md lists the fields of a recipe."
)
STATUS = "Exit status: 0 done; 1 fewer chains than filter.target, or none at all; 2 bad usage or input."


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="thinkprm collect", description=DESCRIPTION, epilog=STATUS)
    parser.add_argument("recipe", help="a YAML file, such as configs/collect/arithmetic.yaml")
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="such as filter.labels=outcome")
    arguments = parser.parse_args(argv)
    return collect(arguments.recipe, arguments.overrides)


def collect(recipe_file: str, overrides: Sequence[str] = ()) -> int:
    from thinkprm_jax.checkpoint.huggingface import resolve_folder
    from thinkprm_jax.collect.filters import Collection
    from thinkprm_jax.collect.recipe import CollectRecipe, SourceCounts, read_generations, select_prefixes
    from thinkprm_jax.collect.report import GENERATIONS, make_report, open_collection, save_collection
    from thinkprm_jax.recipe import load_recipe
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

    recipe = load_recipe(CollectRecipe, recipe_file, overrides)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a preemption notice stops like Ctrl-C

    # What the teacher is asked about, before anything is loaded
    counts = SourceCounts()
    prefixes = []
    if recipe.source.generations is None:
        prefixes, counts = select_prefixes(recipe.source, recipe.seed)
    teacher = recipe.teacher
    tokenizer = Tokenizer.load(resolve_folder(recipe.tokenizer or (teacher.model if teacher else "")))
    folder = open_collection(recipe)
    collection = Collection(recipe.filter, tokenizer, recipe.seed)

    # Chains: those that are stored, then new ones until there are enough
    if recipe.source.generations is not None:
        limit = recipe.source.limit
        for number, generated in enumerate(read_generations(recipe.source.generations, counts)):
            if limit is not None and number >= limit:
                counts.dropped["beyond the limit"] += 1
                continue
            collection.add(number, generated)
    else:
        assert teacher is not None
        generate(recipe, teacher, prefixes, folder / GENERATIONS, collection)

    # What is kept
    kept, decisions = collection.select()
    report = make_report(counts, collection.generated, kept, decisions)
    save_collection(folder, report, kept, decisions)
    return show(recipe, folder, report)


def generate(
    recipe: CollectRecipe, teacher: Teacher, prefixes: Sequence[Prefix], path: Path, collection: Collection
) -> None:
    """Gives the collection the chains of one wave of prefixes after another, until it is complete.

    What is stored in ``path`` is used first; the teacher is loaded only if something is missing.
    """
    from thinkprm_jax.collect.store import GenerationStore
    from thinkprm_jax.collect.teacher import generate_chains
    from thinkprm_jax.progress import VerdictProgress

    sampler = None
    with (
        GenerationStore(path, prefixes, teacher.chains, settings(recipe, teacher)) as store,
        VerdictProgress(store.size, store.stored, unit="chains") as progress,
    ):
        if store.stored:
            progress.say(f"{path}: {store.stored:,} of {store.size:,} chains are there already")
        for start in range(0, len(prefixes), recipe.wave):
            wave = range(start, min(start + recipe.wave, len(prefixes)))
            missing = store.missing(wave)
            if missing:
                sampler = sampler or load(recipe, teacher)
                for key, generation in generate_chains(sampler, teacher, missing, recipe.seed):
                    store.add(key, **dataclasses.asdict(generation))
                    progress.advance(sampler.stats.sampled_tokens)
            for number in wave:
                collection.add(number, store.generated(number))
            wanted = f" of {recipe.filter.target:,}" if recipe.filter.target else ""
            if missing:
                said = f"{wave.stop:,} of {len(prefixes):,} prefixes"
                progress.say(f"{said}: {collection.selectable:,}{wanted} chains to keep")
            if collection.complete:
                break


def settings(recipe: CollectRecipe, teacher: Teacher) -> dict[str, Any]:
    """All that a chain depends on, apart from its prefix; stored with each."""
    from thinkprm_jax.runtime import default_dtype

    resolved = dataclasses.asdict(teacher) | {"dtype": teacher.dtype or default_dtype(), "seed": recipe.seed}
    return {name: value for name, value in resolved.items() if name not in ("slots", "chains")}


def load(recipe: CollectRecipe, teacher: Teacher) -> Sampler:
    import jax

    from thinkprm_jax.collect.teacher import load_teacher
    from thinkprm_jax.distributed.mesh import make_mesh
    from thinkprm_jax.runtime import enable_compilation_cache

    enable_compilation_cache()
    sizes = recipe.mesh.data, recipe.mesh.fsdp, recipe.mesh.tensor
    single = jax.device_count() == 1 and max(sizes) == 1
    return load_teacher(teacher, None if single else make_mesh(*sizes))


def show(recipe: CollectRecipe, folder: Path, report: dict[str, Any]) -> int:
    """The tables, and the exit status."""
    from rich.console import Console

    from thinkprm_jax.collect.report import CHAINS, selection_table, statistics_table

    fancy = sys.stdout.isatty()
    console = Console(highlight=False, markup=False, **({} if fancy else {"width": 200}))
    console.print(selection_table(report, fancy))
    console.print()
    console.print(statistics_table(report, fancy))
    kept, target = report["kept"]["chains"], recipe.filter.target
    console.print(f"\n{folder / CHAINS}: {kept:,} chains")
    if kept and (target is None or kept >= target):
        return 0
    wanted = f" of the {target:,} wanted" if target else ""
    print(f"thinkprm collect: {kept:,} chains{wanted}: the source is used up", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(program.run(main, sys.argv[1:], name="thinkprm collect"))
