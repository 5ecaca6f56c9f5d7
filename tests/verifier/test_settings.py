"""A kind of verifier is one registration, a setting one field: options, recipe keys, stamps and tables follow."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

import thinkprm_jax
from thinkprm_jax import cli
from thinkprm_jax.errors import UserError
from thinkprm_jax.infer.verifier_options import add_verifier_options, choose_verifier
from thinkprm_jax.verifier import registry
from thinkprm_jax.verifier.base import Verdict
from thinkprm_jax.verifier.host import HostVerifier
from thinkprm_jax.verifier.registry import (
    Registration,
    all_settings,
    current_stamp,
    kinds,
    load_verifier,
    register,
    same_settings,
    settings_class,
    verifier_settings,
)
from thinkprm_jax.verifier.settings import VerifierSettings, setting, settings_of, settings_table

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuessSettings(VerifierSettings):
    kind: ClassVar[str] = "guess"
    needs_model: ClassVar[bool] = False

    answer: float = setting(0.5, "the score of every step")
    mood: str = setting("calm", "of no use", stamped="never")


class Guess(HostVerifier):
    Settings = GuessSettings
    settings: GuessSettings

    def judge(self, problem: str, steps: Sequence[str]) -> Verdict:
        return Verdict.of_scores(problem, [self.settings.answer] * len(steps))


@pytest.fixture
def guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind, registered for the test."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    register(Registration("guess", f"{__name__}:Guess"))


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
def test_a_kind_stands_once() -> None:
    with pytest.raises(UserError, match="there is a verifier guess already"):
        register(Registration("guess", "somewhere:Else"))


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
    chosen = choose_verifier(parse("--verifier", kind, "--model", model.get(kind, "mini"), field.option, value))
    assert str(getattr(chosen, name)) == value


def test_a_setting_is_declared_once() -> None:
    """Its name and its default stand in one file; others read the field."""
    places = [
        path
        for path in (ROOT / "thinkprm_jax").rglob("*.py")
        if "decision_temperature: float" in path.read_text() or "decision_temperature=1.0" in path.read_text()
    ]
    assert [path.name for path in places] == ["script.py"]


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
    assert same_settings(written, now)
    assert not same_settings({**written, "seed": 1}, now)
    assert not same_settings(written, {**now, "stop_at_unknown_step": True})
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
