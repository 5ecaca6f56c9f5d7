"""docs/training.md names every field of a recipe, every recipe that ships and every option of the program."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from pathlib import Path

import pytest

from thinkprm_jax import cli
from thinkprm_jax.training.config import TrainRecipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
PODS = (ROOT / "docs" / "pods.md").read_text(encoding="utf-8")


def field_names(cls: type) -> set[str]:
    """Of ``cls`` and of the dataclasses in it."""
    names = set()
    for field, kind in typing.get_type_hints(cls).items():
        names.add(field)
        for part in (kind, *typing.get_args(kind)):
            if dataclasses.is_dataclass(part):
                names |= field_names(part)
    return names


def test_every_field_is_in_the_table() -> None:
    names = field_names(TrainRecipe)
    assert {"rank", "keep_every", "peak_tflops", "num_kv_heads"} <= names
    spelled = {"examples, seed, split, start"}
    assert all(text in PAGE for text in spelled)
    missing = {name for name in names - {"start", "split"} if not any(f"{c}{name}" in PAGE for c in "`.")}
    assert not missing


def test_every_recipe_is_in_the_list() -> None:
    for recipe in (ROOT / "configs" / "train").glob("*.yaml"):
        assert recipe.name in PAGE


def test_every_option_is_on_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def remember(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        asked.extend(option for action in parser._actions for option in action.option_strings)
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", remember)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", remember)
    for program in ("train", "export"):
        with pytest.raises(SystemExit):
            cli.main([program])
    for option in set(asked) - {"-h", "--help"}:
        assert option in PAGE or option in PODS, option
    assert "--plan" in asked


def test_the_pages_of_training_do_not_point_nowhere() -> None:
    for page in ("training.md", "training-data.md", "pods.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for target in (part.split(")")[0] for part in text.split("](")[1:]):
            assert target.startswith("https://") or (ROOT / "docs" / target.split("#")[0]).exists(), (page, target)
