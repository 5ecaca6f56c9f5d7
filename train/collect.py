"""`thinkprm collect RECIPE [field=value ...]`: verification chains from a teacher, filtered by step labels.

The run lives in the recipe's ``output`` folder: recipe.yaml (resolved), generations.jsonl (every chain as it
came), chains.jsonl (what is kept, for `thinkprm train`), decisions.jsonl, report.json and lengths.png. Started
again with the same recipe, it goes on where it was, even after kill -9; with other ``filter`` fields, the stored
generations are filtered anew. Several processes share one folder: each makes parts of the chains.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thinkprm_jax import program
from thinkprm_jax.storage import location

if TYPE_CHECKING:
    from thinkprm_jax.activity import Activity
    from thinkprm_jax.collect.filters import Collection
    from thinkprm_jax.collect.recipe import CollectRecipe, Teacher
    from thinkprm_jax.data.prm800k import Prefix
    from thinkprm_jax.records.job import Sharing
    from thinkprm_jax.sampler import Sampler

DESCRIPTION = (
    "Lets a teacher verify labelled solution prefixes and keeps the chains whose verdicts agree with the labels. "
    "The run lives in the recipe's output folder; started again with the same recipe, it goes on where it was. "
    "docs/collection.md lists the fields of a recipe."
)
STATUS = (
    "Several processes share one output: the same command in each. Exit status: 0 done; 1 fewer chains than "
    "filter.target, or none at all; 2 bad usage or input; 3 other processes hold what is missing."
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="thinkprm collect", description=DESCRIPTION, epilog=STATUS)
    parser.add_argument("recipe", help="a YAML file, such as configs/collect/arithmetic.yaml")
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="such as filter.labels=outcome")
    from thinkprm_jax.distributed.mesh_option import OPTION, check_mesh
    from thinkprm_jax.recipe import plain_overrides
    from thinkprm_jax.views.sharing import VALUES, add_sharing_options, chosen_sharing

    help = "devices of the teacher, such as data=2,tensor=4, or auto (default: the recipe's mesh)"
    parser.add_argument(OPTION, metavar="AXES", help=help)
    add_sharing_options(parser, parts="the chains of `wave` prefixes")
    given = plain_overrides(sys.argv[1:] if argv is None else argv, [OPTION, *VALUES])
    arguments = parser.parse_intermixed_args(given)
    check_mesh(arguments.mesh)
    return collect(arguments.recipe, arguments.overrides, arguments.mesh, chosen_sharing(arguments))


def collect(
    recipe_file: str, overrides: Sequence[str] = (), mesh: str | None = None, sharing: Sharing | None = None
) -> int:
    """Returns the exit status.

    Args:
      mesh: in place of the recipe's. sharing: how this process takes part where others collect, too.
    """
    from thinkprm_jax.checkpoint.huggingface import resolve_folder
    from thinkprm_jax.collect.filters import Collection
    from thinkprm_jax.collect.recipe import CollectRecipe, SourceCounts, read_generations, select_prefixes
    from thinkprm_jax.collect.report import make_report, open_collection, save_collection
    from thinkprm_jax.recipe import load_recipe
    from thinkprm_jax.records.job import MISSING
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer
    from thinkprm_jax.train.collect_report import draw_lengths, print_collection

    recipe = load_recipe(CollectRecipe, recipe_file, overrides)
    source, teacher = recipe.source, recipe.teacher

    # What the teacher is asked about, before anything is loaded
    counts = SourceCounts()
    prefixes: Sequence[Prefix] = []
    if source.generations is None:
        prefixes, counts = select_prefixes(source, recipe.seed)
    tokenizer = Tokenizer.load(resolve_folder(recipe.tokenizer or (teacher.model if teacher else "")))
    collection = Collection(recipe.filter, tokenizer, recipe.seed, None if teacher is None else recipe.wave)

    # Chains: those of files, or of a teacher
    if source.generations is not None:
        folder = open_collection(recipe)
        for number, generated in enumerate(read_generations(source.generations, counts)):
            if source.limit is not None and number >= source.limit:
                counts.dropped["beyond the limit"] += 1
                continue
            collection.add(number, generated)
    else:
        assert teacher is not None
        folder = location(recipe.output)
        missing = generate(recipe, teacher, prefixes, collection, mesh, sharing)
        if missing:
            print(f"thinkprm collect: {missing}", file=sys.stderr)
            return MISSING

    # What is kept
    kept, decisions = collection.select()
    report = make_report(counts, collection.generated, kept, decisions)
    save_collection(folder, report, kept, decisions, draw_lengths(kept))
    print_collection(report, folder)
    target = recipe.filter.target
    if kept and (target is None or len(kept) >= target):
        return 0
    print(f"thinkprm collect: {collection.shortfall(kept, decisions)}", file=sys.stderr)
    return 1


def generate(
    recipe: CollectRecipe,
    teacher: Teacher,
    prefixes: Sequence[Prefix],
    collection: Collection,
    mesh: str | None = None,
    sharing: Sharing | None = None,
) -> str:
    """Gives the collection the chains of the prefixes, until they are all there or it wants no more.

    What is stored is used first; the teacher is loaded only if something is missing.

    Returns: what is missing, in words, where others hold it and they are not waited for.
    """
    from thinkprm_jax.collect.report import open_store
    from thinkprm_jax.collect.teacher import (
        generate_chains,
        load_teacher,
        place_teacher,
        teacher_settings,
        with_fingerprints,
    )
    from thinkprm_jax.distributed.mesh_option import local_mesh
    from thinkprm_jax.progress import LOOK_SECONDS, Ticker, VerdictProgress
    from thinkprm_jax.runtime import enable_compilation_cache

    sampler, settings = None, teacher_settings(teacher, recipe.seed)
    with contextlib.ExitStack() as stack:
        store = open_store(recipe, prefixes, settings, collection, sharing)
        stack.enter_context(contextlib.closing(store))
        progress = stack.enter_context(VerdictProgress(store.size, store.stored, unit="chain"))
        store.say = progress.say
        if store.stored:
            progress.say(f"{recipe.output}: {store.stored:,} of {store.size:,} chains are there already")
        if store.shown() is not None:
            stack.enter_context(Ticker(LOOK_SECONDS, lambda: progress.show(*(store.shown() or (0, "")))))
        for missing in store.work(recipe.wave):
            if missing:
                if sampler is None:
                    store.check_teacher(with_fingerprints(settings))
                    enable_compilation_cache()
                    if mesh is None:
                        devices = local_mesh(dataclasses.asdict(recipe.mesh), recipe.mesh.text)
                    else:
                        teacher, devices = place_teacher(teacher, mesh)
                    progress.phase(f"loading {teacher.model}")
                    sampler = load_teacher(teacher, devices)
                progress.follow({"": functools.partial(_activity, sampler)}, "chains", len(missing))
                for key, generation in generate_chains(sampler, teacher, missing, recipe.seed):
                    store.add(key, **dataclasses.asdict(generation))
                    progress.advance()
                wanted = f" of {recipe.filter.target:,}" if recipe.filter.target else ""
                said = f"{collection.prefixes:,} of {len(prefixes):,} prefixes"
                progress.say(f"{said}: {collection.selectable:,}{wanted} chains to keep")
        return store.finish()


def _activity(sampler: Sampler) -> Activity:
    return sampler.activity


if __name__ == "__main__":
    program.start(main, "thinkprm collect")
