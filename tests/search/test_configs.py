"""The recipes that come with the project, and the page about them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from thinkprm_jax.search.recipe import UNUSED, SearchRecipe, load_search_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs" / "search").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_says_what_it_is(path: Path) -> None:
    lines: list[str] = []
    recipe = load_search_recipe(path, say=lines.append)
    assert lines == []
    assert recipe.output_dir == f"runs/{path.stem}"
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_every_search_of_the_paper_has_its_three_recipes() -> None:
    names = {path.stem for path in RECIPES}
    for number in range(4, 10):
        single = [name for name in names if re.match(rf"e{number}_.*(?<!_parallel)(?<!_sequential)$", name)]
        assert len(single) == 1, number
        recipes = {
            suffix: load_search_recipe(ROOT / "configs" / "search" / f"{single[0]}{suffix}.yaml")
            for suffix in ("", "_parallel", "_sequential")
        }
        assert (recipes[""].prm_n, recipes[""].rounds) == (1, 1)
        assert (recipes["_parallel"].prm_n, recipes["_parallel"].rounds) == (4, 1)
        assert (recipes["_sequential"].prm_n, recipes["_sequential"].rounds) == (1, 2)


def test_the_page_names_every_field() -> None:
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    table = page[page.index("## Recipe") :]
    named = set(re.findall(r"`(\w+)`", table))
    assert set(SearchRecipe.__dataclass_fields__) | set(UNUSED) <= named
