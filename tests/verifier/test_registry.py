"""One loader for every kind of verifier: by name, by path, by config.json."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pytest

from support import prm_folders, tiny_model
from thinkprm_jax.data.discriminative import PUBLISHED
from thinkprm_jax.errors import UserError
from thinkprm_jax.infer.verifier_options import add_verifier_options, choose_verifier
from thinkprm_jax.verifier.base import Verdict, Verifier
from thinkprm_jax.verifier.discriminative import DiscriminativePRM
from thinkprm_jax.verifier.judge import LLMJudge
from thinkprm_jax.verifier.registry import kinds, load_verifier, recognise, settings_class, verifier_settings
from thinkprm_jax.verifier.thinkprm import ThinkPRM

SOLUTION = ("What is 2 + 2?", ["2 + 2 = 4.", "So the answer is 4."])


NAMES = {
    "thinkprm": "ThinkPRM-tiny",
    "judge": "some-model",
    "disc_prm": "ours",
    "math_shepherd": "math-shepherd-mistral-7b-prm",
    "rlhflow": "Llama3.1-8B-PRM-Mistral-Data",
    "qwen_prm": "local-copy",
    "skywork_prm": "another-copy",
}


class Folders:
    """Kind -> a folder of that kind, made when it is wanted; some say it, some are named for it."""

    def __init__(self, root: Path) -> None:
        self._root, self._plain = root, tiny_model.save_folder(root / "plain", layers=1)

    def __getitem__(self, kind: str) -> str:
        folder = self._root / NAMES[kind]
        if not folder.exists():
            if kind in ("thinkprm", "judge", "disc_prm"):
                shutil.copytree(self._plain, folder)
            else:
                folder.mkdir()
                getattr(prm_folders, kind)(folder)
        if kind == "disc_prm":
            config = folder / "config.json"
            config.write_text(json.dumps({**json.loads(config.read_text()), "thinkprm": PUBLISHED.to_config()}))
        return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Folders:
    return Folders(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("kind", [kind for kind in kinds() if settings_class(kind).needs_model])
def test_every_kind_is_loaded_and_gives_what_all_offer(folders, kind):
    settings = {"max_length": 512, "dtype": "float32"}
    if kind in ("thinkprm", "judge"):
        settings |= {"max_gen_tokens": 4, "slots": 1}
    if kind == "judge":
        settings["force_decision"] = True
    described = verifier_settings(folders[kind], kind=kind, **settings)
    verifier = load_verifier(described)
    assert isinstance(verifier, Verifier)
    assert verifier.kind == kind
    assert verifier.settings.stamp == described.stamp == json.loads(json.dumps(described.stamp))
    [(index, verdict)] = verifier.verify([SOLUTION])
    assert type(verdict) is Verdict
    assert index == 0
    assert verdict.error is None
    assert 0 <= verdict.prefix_score <= 1
    assert len(verdict.step_scores) == (2 if verifier.judges_steps else 1)
    assert verifier.sampled_tokens == verdict.output_tokens
    assert (verdict.output_tokens > 0) == (len(verdict.chains) > 0) == described.writes
    assert verifier.split("Half of 8 is 4.\n\nSo 4.") == ["Half of 8 is 4.", "So 4."]
    assert list(verdict.as_dict()["step_scores"][0]) in (verdict.step_scores, [])


@pytest.mark.parametrize("kind", ["thinkprm", "disc_prm", "math_shepherd", "rlhflow", "qwen_prm", "skywork_prm"])
def test_a_folder_says_its_kind(folders, kind):
    assert verifier_settings(folders[kind]).kind == kind
    if kind != "thinkprm":
        assert verifier_settings(folders[kind], kind="discriminative").kind == kind


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("peiyi9979/math-shepherd-mistral-7b-prm", "math_shepherd"),
        ("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "rlhflow"),
        ("RLHFlow/Llama3.1-8B-PRM-Mistral-Data", "rlhflow"),
        ("Qwen/Qwen2.5-Math-PRM-7B", "qwen_prm"),
        ("Qwen/Qwen2.5-Math-7B-PRM800K", "qwen_prm"),
        ("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B", "skywork_prm"),
        ("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B", "skywork_prm"),
        ("mkhalifa/r1-1.5b-discriminative-prm800k", "disc_prm"),
        ("mkhalifa/r1-1.5b-thinkprm", "thinkprm"),
        ("launch/ThinkPRM-14B", "thinkprm"),
        ("mini", "thinkprm"),
    ],
)
def test_ids_of_the_originals_recipes_are_known_without_a_download(path, kind):
    assert recognise(path) == (kind, None)


def test_a_folder_is_not_known_by_where_it_lies(tmp_path, monkeypatch):
    folder = tmp_path / "thinkprm_jax" / "llama"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert recognise(folder)[0] is None
    folder.rename(tmp_path / "math-shepherd-mistral-7b-prm")
    monkeypatch.chdir(tmp_path / "math-shepherd-mistral-7b-prm")
    assert recognise(".")[0] == "math_shepherd"


def test_an_id_that_says_nothing_needs_a_kind(folders):
    with pytest.raises(
        UserError, match="says what kind of verifier this is; say one of thinkprm, judge, disc_prm"
    ):
        verifier_settings(folders["judge"])
    assert verifier_settings(folders["judge"], default="thinkprm").kind == "thinkprm"


@pytest.mark.parametrize("name", ["majority", "none"])
def test_without_a_verifier(name):
    settings = verifier_settings(kind=name)
    assert settings.stamp == {"kind": "majority"}
    with pytest.raises(UserError, match="majority is no verifier: it judges no solution"):
        load_verifier(settings)


@pytest.mark.parametrize(
    ("kind", "path", "settings", "message"),
    [
        ("best", "mini", {}, "there is no verifier 'best' (we have: thinkprm, judge, "),
        ("thinkprm", None, {}, "a verifier of kind thinkprm needs the path or id of a model"),
        ("rlhflow", "Qwen/Qwen2.5-Math-PRM-7B", {}, "is a verifier of kind qwen_prm, not rlhflow"),
        ("judge", "peiyi9979/math-shepherd-mistral-7b-prm", {}, "is a verifier of kind math_shepherd, not judge"),
        ("discriminative", "launch/ThinkPRM-7B", {}, "is of kind thinkprm, which is not discriminative"),
        (
            "qwen_prm",
            "Qwen/Qwen2.5-Math-PRM-7B",
            {"n": 4},
            "n is no setting of the verifier qwen_prm (it has: max_",
        ),
        ("none", None, {"n": 4}, "n is no setting of the verifier majority (it has none)"),
        ("thinkprm", "mini", {"n": 2, "temperature": 0}, "n 2 needs a temperature above 0"),
        ("judge", "mini", {"judge_prompt": "x"}, "judge_prompt is 'x', it must be one of single, index, steps"),
        ("judge", "mini", {"n": 0}, "n is 0"),
        ("judge", "mini", {"top_p": 0.0}, "top_p is 0.0"),
        ("thinkprm", "mini", {"rounds": 5}, "5 thinking rounds need 4 trigger phrases"),
        ("thinkprm", "mini", {"max_gen_tokens": 0}, "max_gen_tokens is 0, it must be at least 1"),
    ],
)
def test_what_cannot_work_is_one_line(kind, path, settings, message):
    with pytest.raises(UserError) as refusal:
        verifier_settings(path, kind=kind, **settings)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["qwen_prm", "skywork_prm", "math_shepherd", "rlhflow"])
@pytest.mark.parametrize("verifier", [ThinkPRM, LLMJudge])
def test_a_model_that_writes_no_chains_is_named_by_its_kind(folders, kind, verifier):
    with pytest.raises(UserError, match=f"is a verifier of kind {kind}, not .* --verifier {kind} take it"):
        verifier(folders[kind])


def test_a_model_of_the_papers_authors_needs_no_layout(folders, tmp_path):
    folder = tiny_model.save_folder(tmp_path / "r1-1.5b-discriminative-prm800k")
    scores = [
        prm.predict_correctness_batch(*([part] for part in SOLUTION))
        for prm in (load_verifier(folder, kind="discriminative"), DiscriminativePRM(folder, layout=PUBLISHED))
    ]
    assert scores[0] == scores[1]


def test_settings_share_a_sampler(folders):
    one = load_verifier("mini", dtype="float32", max_length=512)
    settings = verifier_settings("mini", dtype="float32", max_length=512, n=3, rounds=2)
    three = load_verifier(settings, like=one)
    assert three.sampler is one.sampler
    assert three.settings.stamp == settings.stamp
    assert (three.n, three.settings.temperature, three.n_thinking_rounds) == (3, 0.6, 2)
    with pytest.raises(UserError, match="like: its max_length is 512, not 256"):
        load_verifier("mini", dtype="float32", max_length=256, like=one)


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_verifier_options(parser)
    return parser.parse_args(arguments)


def test_options_describe_a_verifier():
    spec = choose_verifier(parse("--n", "4", "--rounds", "2", "--max-length", "900", "--dtype", "bfloat16"))
    assert (spec.kind, spec.model, spec.rounds) == ("thinkprm", "mini", 2)
    assert (spec.stamp["temperature"], spec.stamp["rounds"], spec.stamp["max_length"]) == (0.6, 2, 900)
    spec = choose_verifier(parse("--prm-type", "judge", "--judge-prompt", "index", "--seed", "3"))
    assert (spec.kind, spec.stamp["judge_prompt"], spec.stamp["seed"]) == ("judge", "index", 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--n", "2"), "--n is no option of the verifier qwen_prm"),
        (("--judge-prompt", "steps"), "--judge-prompt is no option of the verifier qwen_prm"),
        (("--verifier", "majority"), "--verifier majority gives no verdicts"),
        (("--verifier", "guess"), "there is no verifier 'guess'"),
    ],
)
def test_options_of_another_kind_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        choose_verifier(parse("--model", "Qwen/Qwen2.5-Math-PRM-7B", *arguments))


def test_options_that_a_program_shares_are_no_verifiers():
    spec = choose_verifier(parse("--model", "Qwen/Qwen2.5-Math-PRM-7B", "--seed", "5", "--slots", "64"))
    assert type(spec) is settings_class("qwen_prm")


def test_the_help_names_every_kind():
    parser = argparse.ArgumentParser()
    add_verifier_options(parser)
    assert all(kind in parser.format_help() for kind in kinds() if kind != "majority")
