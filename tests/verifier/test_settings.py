"""A kind of verifier is one registration, a setting one field: options, recipe keys, stamps and tables follow."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import thinkprm_jax
from support.guess_verifier import GuessSettings, register_guess
from thinkprm_jax import cli
from thinkprm_jax.errors import UserError
from thinkprm_jax.infer.verifier_options import add_verifier_options, choose_verifier
from thinkprm_jax.search.models import describe
from thinkprm_jax.search.recipe import SearchRecipe, load_search_recipe
from thinkprm_jax.verifier.registry import (
    PROGRAM_OPTIONS,
    Registration,
    all_settings,
    current_stamp,
    kinds,
    load_verifier,
    register,
    settings_class,
    verifier_settings,
)
from thinkprm_jax.verifier.settings import VerifierSettings, setting, settings_of, settings_table

ROOT = Path(__file__).parents[2]


@pytest.fixture
def guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind, registered for the test."""
    register_guess(monkeypatch)


@pytest.mark.usefixtures("guess")
def test_a_new_kind_is_one_registration_and_its_setting_one_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    solution = {"problem": "2 + 2?", "steps": ["2 + 2 = 4.", "So 4."]}
    (tmp_path / "in.jsonl").write_text(json.dumps(solution) + "\n")
    options = ["--verifier", "guess", "--answer", "0.7", "--mood", "merry"]
    paths = [str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl"), "--quiet"]
    assert cli.main(["score", *paths, *options]) == 0
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert row["verdict"]["step_scores"] == [0.7, 0.7]
    assert row["verifier"] == {"kind": "guess", "answer": 0.7}
    assert "`answer` | `0.5` | `--answer` | `prm_answer` | the score" in settings_table(GuessSettings)
    assert load_verifier(GuessSettings(answer=0.2)).score(["?"], [["1\n\n2"]]) == [[[0.2, 0.2]]]
    assert load_verifier(kind="guess", answer=0.3).score(["?"], [["1\n\n2"]]) == [[[0.3, 0.3]]]
    assert cli.main(["score", *paths, *options, "--rounds", "2"]) == 2
    assert capsys.readouterr().err.endswith("--rounds is no option of the verifier guess\n")
    details = ["--details", str(tmp_path / "details.jsonl")]
    assert cli.main(["evaluate", "arithmetic", "--problems", "2", "--verifier", "guess", *details]) == 0


@pytest.mark.usefixtures("guess")
def test_a_kind_that_is_registered_late_has_its_recipe_keys(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("prm_type: guess\nprm_answer: 0.7\n")
    recipe = load_search_recipe(tmp_path / "r.yaml")
    assert describe(recipe).stamp == {"kind": "guess", "answer": 0.7}
    assert describe(SearchRecipe(prm_type="guess")).stamp == {"kind": "guess", "answer": 0.5}
    (tmp_path / "r.yaml").write_text("prm_type: guess\nprm_answer: high\n")
    with pytest.raises(UserError, match=r"line 2: prm_answer must be a number, not 'high'"):
        load_search_recipe(tmp_path / "r.yaml")


@pytest.mark.usefixtures("guess")
def test_a_recipe_whose_verifier_cannot_work_leaves_no_folder_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text("dataset_name: arithmetic\nnum_samples: 1\nprm_path: mini\nprm_top_p: 2.0\n")
    assert cli.main(["search", str(tmp_path / "r.yaml"), f"output_dir={tmp_path / 'run'}"]) == 2
    assert "top_p is 2.0, it must lie in (0, 1]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("guess")
def test_a_kind_stands_once() -> None:
    with pytest.raises(UserError, match="there is a verifier guess already"):
        register(Registration("guess", "somewhere:Else"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputSettings(VerifierSettings):
    kind: ClassVar[str] = "clash"
    output: str = setting("", "called as an option of the program")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherSeedSettings(VerifierSettings):
    kind: ClassVar[str] = "clash"
    seed: str = setting("x", "another thing than everybody's seed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SameOptionSettings(VerifierSettings):
    kind: ClassVar[str] = "clash"
    chains: int = setting(1, "of the same option as n", option="n")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SameKeySettings(VerifierSettings):
    kind: ClassVar[str] = "clash"
    chains: int = setting(1, "of the same recipe key as n", recipe="prm_n")


class Clash:
    Settings: ClassVar[type[VerifierSettings]]


@pytest.mark.usefixtures("guess")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (OutputSettings, "the setting output of the verifier clash: programs have an option output of their own"),
        (OtherSeedSettings, "the setting seed of the verifier clash is another thing than that of thinkprm"),
        (SameOptionSettings, "chains of the verifier clash: --n is the option of n of thinkprm"),
        (SameKeySettings, "chains of the verifier clash: prm_n is the recipe key of n of thinkprm"),
    ],
)
def test_a_setting_that_would_be_two_things_is_refused_when_its_kind_is_registered(
    monkeypatch: pytest.MonkeyPatch, settings: type[VerifierSettings], message: str
) -> None:
    monkeypatch.setattr(Clash, "Settings", settings, raising=False)
    with pytest.raises(UserError, match=message):
        register(Registration("clash", f"{__name__}:Clash"))
    assert "clash" not in kinds()


def test_a_kind_without_a_class_is_refused_when_it_is_registered() -> None:
    with pytest.raises(UserError, match=r"the verifier lost cannot be loaded: .*Nothing"):
        register(Registration("lost", f"{__name__}:Nothing"))


@pytest.mark.usefixtures("guess")
def test_a_model_for_a_kind_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="a verifier of kind guess is no model, and mini is given: leave it out"):
        verifier_settings("mini", kind="guess")


@pytest.mark.parametrize("program", [["score"], ["evaluate", "arithmetic"], ["evaluate", "processbench"]])
def test_the_options_that_no_setting_may_have_are_those_of_the_programs(
    monkeypatch: pytest.MonkeyPatch, program: list[str]
) -> None:
    seen: list[argparse.Namespace] = []
    parse_args = argparse.ArgumentParser.parse_args

    def remember(self: argparse.ArgumentParser, *arguments: Any) -> argparse.Namespace:
        seen.append(parse_args(self, *arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", remember)
    cli.main(program)
    own = {name.replace("_", "-") for name in vars(seen[0])} - {name.replace("_", "-") for name in all_settings()}
    assert own - {"verifier"} <= PROGRAM_OPTIONS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n": 1.5}, "n is 1.5, it must be a whole number"),
        ({"n": True}, "n is True, it must be a whole number"),
        ({"n": "2"}, "n is '2', it must be a whole number"),
        ({"seed": 1.5}, "seed is 1.5, it must be a whole number"),
        ({"seed": -1}, "seed is -1, it must be a whole number from 0"),
        ({"temperature": "0.6"}, "temperature is '0.6', it must be a finite number"),
        ({"temperature": math.nan}, "temperature is nan, it must be a finite number"),
        ({"temperature": math.inf}, "temperature is inf, it must be a finite number"),
        ({"top_p": None}, "top_p is None, it must be a finite number"),
        ({"stop_at_unknown_step": 1}, "stop_at_unknown_step is 1, it must be True or False"),
        ({"prompt": "Problem: {problem}"}, r"the prompt lacks the field \{solution\}"),
        ({"triggers": ()}, "triggers must name at least one phrase"),
        ({"triggers": ("Hm", " ")}, "triggers must name at least one phrase, and no empty one"),
        ({"triggers": "Hm"}, "triggers is 'Hm', it must be a list of texts"),
        ({"prompt": 3}, "prompt is 3, it must be a text"),
        ({"dtype": "int8"}, "dtype is 'int8', it must be one of float32, bfloat16, float16"),
        ({"model": 3}, "model is 3, it must be a name, a folder or an id"),
        ({"n": 2, "temperature": 0}, "n 2 needs a temperature above 0"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings_class("thinkprm")(**values)


def test_values_are_kept_as_their_field_has_them() -> None:
    found = settings_class("thinkprm")(
        n=np.int64(2), temperature=np.float32(0.5), decision_temperature=1, triggers=["Hm"], model=None
    )
    assert json.dumps(found.stamp)
    assert (found.n, found.temperature, found.triggers) == (2, 0.5, ("Hm",))
    assert type(found.decision_temperature) is float


@pytest.mark.usefixtures("guess")
def test_a_setting_of_a_kind_of_ones_own_is_checked_too() -> None:
    with pytest.raises(UserError, match=r"answer is '0\.7', it must be a finite number"):
        load_verifier(kind="guess", answer="0.7")


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_verifier_options(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize("name", list(all_settings()))
def test_every_setting_has_help_and_an_option(name: str) -> None:
    field, takers = all_settings()[name]
    assert field.info.help
    assert takers
    if not field.option or field.type is bool:
        return
    value = field.choices[-1] if field.choices else str({int: 3, float: 0.5, str: "x"}[field.type])
    kind = takers[-1]
    model = {"qwen_prm": "Qwen/Qwen2.5-Math-PRM-7B", "skywork_prm": "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B"}
    named = ["--model", model.get(kind, "mini")] if settings_class(kind).needs_model else []
    chosen = choose_verifier(parse("--verifier", kind, *named, field.option, value))
    assert str(getattr(chosen, name)) == value


def test_a_setting_is_declared_once() -> None:
    """Its name and its default stand in one file, and in what asks a server for it; others read the field."""
    places = [
        path
        for path in (ROOT / "thinkprm_jax").rglob("*.py")
        if any(
            said in path.read_text()
            for said in ("decision_temperature: float = setting", "decision_temperature=1.0")
        )
    ]
    assert sorted(path.name for path in places) == ["client.py", "script.py"]


def test_the_stamps_of_all_kinds_have_one_shape() -> None:
    for kind in kinds():
        cls = settings_class(kind)
        stamp = cls(model="x").settled().stamp if cls.needs_model else cls().stamp
        expected = [name for name, field in settings_of(cls).items() if field.info.stamped == "always"]
        assert list(stamp) == ["kind", *(["model"] if cls.needs_model else []), *expected]
        assert json.loads(json.dumps(stamp)) == stamp


def test_stamps_of_older_versions_are_the_same_settings() -> None:
    now = verifier_settings("mini").stamp
    old = ("model", "n", "rounds", "temperature", "seed", "max_length", "max_gen_tokens", "decision_temperature")
    written = {name: now[name] for name in (*old, "dtype")}  # `thinkprm score` of the first versions
    assert current_stamp(written) == current_stamp(now)
    assert current_stamp({**written, "seed": 1}) != current_stamp(now)
    assert current_stamp(written) != current_stamp({**now, "stop_at_unknown_step": True})
    assert current_stamp({"kind": "of another version"}) == {"kind": "of another version"}


def test_a_changed_text_is_in_the_stamp() -> None:
    assert "prompt" not in verifier_settings("mini").stamp
    assert verifier_settings("mini", prompt="{problem} {solution}").stamp["prompt"] == "{problem} {solution}"
    assert verifier_settings("mini", triggers=("Hm",)).stamp["triggers"] == ["Hm"]


def test_the_help_of_a_program_loads_no_jax() -> None:
    code = (
        "import sys\n"
        "from thinkprm_jax.infer import score\n"
        "try:\n    score.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'jax' not in sys.modules, 'jax was loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_documentation_has_the_table_of_every_kind() -> None:
    text = (ROOT / "docs" / "verifiers.md").read_text(encoding="utf-8")
    for kind in kinds():
        table = settings_table(settings_class(kind))
        if settings_of(settings_class(kind)):
            section = next(part for part in text.split("\n### ")[1:] if f"`{kind}`" in part.partition("\n")[0])
            assert table in section, f"docs/verifiers.md: the table of {kind} is not that of its settings"


@pytest.mark.parametrize("name", ["ThinkPRM", "LLMJudge", "QwenPRM", "DiscriminativePRM"])
def test_help_shows_the_settings(name: str) -> None:
    cls = getattr(thinkprm_jax, name)
    shown = inspect.signature(cls).parameters
    for each in settings_of(cls.Settings).values():
        assert shown[each.name].default == each.default
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in shown.values())
