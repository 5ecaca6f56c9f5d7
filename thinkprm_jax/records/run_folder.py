"""The folder of a run: whose recipe is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.paths import check_output_folder
from thinkprm_jax.recipe import differences, dump_recipe, flat_fields, load_recipe, read_fields
from thinkprm_jax.records.files import atomic_write
from thinkprm_jax.storage import Location

RECIPE = "recipe.yaml"


def claim_folder(folder: Location, recipe: Any, begun: bool, free: tuple[str, ...]) -> None:
    """Writes the resolved recipe into the folder of a run; before the run has ``begun`` it may replace another.

    Args:
      recipe: a recipe class of :mod:`thinkprm_jax.recipe`.
      free: beginnings of dotted fields that may change between the parts of one run.
    Raises:
      UserError: the folder holds a run of another recipe (names the fields), or cannot be written.
    """
    check_output_folder(folder)
    saved = folder / RECIPE
    if begun and saved.exists():
        changed = differences(load_recipe(type(recipe), saved), recipe)
        changed = {name: pair for name, pair in changed.items() if not name.startswith(free)}
        if changed:
            listed = ", ".join(f"{name} ({old!r} there, {new!r} now)" for name, (old, new) in changed.items())
            raise UserError(f"{folder} holds a run of another recipe: {listed}; choose another output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output {folder}: {error.strerror}") from None
    atomic_write(saved, dump_recipe(recipe))


def agreed_fields(recipe: Any, free: tuple[str, ...]) -> dict[str, Any]:
    """Dotted field -> value of a recipe, of all that may not change between the parts of one run: see
    :func:`claim_folder`."""
    return {name: value for name, value in flat_fields(recipe).items() if not name.startswith(free)}


def read_saved_recipe(folder: Location) -> Mapping[str, Any]:
    """The fields of the recipe in the folder of a run, unchecked; {} where there is none.

    Raises:
      UserError: the file is no table of YAML.
    """
    path = folder / RECIPE
    return read_fields(path) if path.exists() else {}
