"""Scores at the separators, against transformers and the arithmetic of the paper's public code."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from support import oracle, processes, tiny_model
from thinkprm_jax.data.discriminative import PUBLISHED, Layout, StepEncoder
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.discriminative import DiscriminativePRM
from thinkprm_jax.verifier.thinkprm import ThinkPRM

QUESTIONS = ["What is 2 + 2 * 3?", "Ann has 3 apples and buys 4.", "Half of 8?"]
STEPS = [
    ["2 * 3 = 6.", "2 + 6 = 8.", "So the answer is 8."],
    ["Step 1: 3 + 4 = 8."],
    [f"{number} is a step of a solution that is longer than the others." for number in range(11)],
]


def published_scores(model: torch.nn.Module, tokenizer: Tokenizer, question: str, steps: list[str]) -> list[float]:
    """The public DiscriminativePRM: encode apart, the separator's id behind, softmax over {+, -} at it."""

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text)  # no special tokens

    separator, positive, negative = (encode(text)[-1] for text in (" ки", "+", "-"))
    ids = encode(question)
    for number, step in enumerate(steps, start=1):
        ids += [*encode(f"\nStep {number}: {step.removeprefix('Step 1: ')}"), separator]
    tokens = torch.tensor([ids])
    with torch.inference_mode():
        logits = model(tokens).logits[:, :, [positive, negative]]
        scores = logits.softmax(dim=-1)[:, :, 0]
        return scores[tokens == separator].tolist()


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def pair(request, tmp_path_factory) -> tuple[torch.nn.Module, Path]:
    """A random transformers Qwen2, and its folder with our tokenizer."""
    model = oracle.random_model("qwen2", heads=4, kv_heads=2, tied=request.param)
    return model, oracle.save(model, tmp_path_factory.mktemp("qwen2"))


def test_scores_are_those_of_the_public_code(pair):
    model, folder = pair
    prm = DiscriminativePRM(folder, layout=PUBLISHED, max_length=1024)
    results = prm.predict_correctness_batch(QUESTIONS, STEPS)
    for question, steps, result in zip(QUESTIONS, STEPS, results, strict=True):
        expected = published_scores(model, prm.tokenizer, question, steps)
        assert result["step_scores"] == [pytest.approx(expected, abs=1e-5)]
        assert result["step_labels"] == [[int(score > 0.5) for score in expected]]
        assert result["prefix_score"] == result["prefix_scores"][0] == result["step_scores"][0][-1]
    assert {label for result in results for label in result["step_labels"][0]} == {0, 1}


@pytest.fixture(scope="module")
def tiny(mini_tokenizer) -> Decoder:
    return tiny_model.make_decoder(mini_tokenizer)


def test_the_interface_of_search_and_learn(tiny, mini_tokenizer):
    prm = DiscriminativePRM(model=tiny, tokenizer=mini_tokenizer)
    outputs = [["Step 1: 2 * 3 = 6.\nStep 2: 2 + 6 = 8.", "It is 8."], ["3 + 4 = 7."]]
    scores = prm.score(QUESTIONS[:2], outputs)
    assert [[len(steps) for steps in texts] for texts in scores] == [[2, 1], [1]]
    assert scores[0][0] == pytest.approx(
        prm.predict_correctness_batch(QUESTIONS[:1], [["2 * 3 = 6.", "2 + 6 = 8."]])[0]["step_scores"][0], abs=1e-6
    )
    with pytest.raises(RequestError, match="question 1, output 0: there are no steps"):
        prm.score(QUESTIONS[:2], [["It is 8."], ["  "]])


@pytest.mark.slow
def test_neighbours_order_and_batches_do_not_matter(tiny, mini_tokenizer):
    random = np.random.default_rng(0)
    items = [
        (QUESTIONS[i % 3], [f"{random.integers(99)} + 1 = {random.integers(99)}."] * int(random.integers(1, 20)))
        for i in range(14)
    ]
    alone = {}
    for index, item in enumerate(items):
        ((_, verdict),) = DiscriminativePRM(model=tiny, tokenizer=mini_tokenizer).verify([item])
        alone[index] = verdict.step_scores
    for batch_tokens in (1, 700):
        prm = DiscriminativePRM(model=tiny, tokenizer=mini_tokenizer, batch_tokens=batch_tokens)
        found = {index: verdict.step_scores for index, verdict in prm.verify(items)}
        assert sorted(found) == list(range(14))
        for index, scores in found.items():
            assert scores == pytest.approx(alone[index], abs=1e-5)


@pytest.mark.slow
def test_few_programs_are_compiled(mini_tokenizer):
    config = dataclasses.replace(tiny_model.make_config(mini_tokenizer), hidden_size=24)  # nobody else's
    prm = DiscriminativePRM(
        model=Decoder(config, rngs=nnx.Rngs(0)), tokenizer=mini_tokenizer, max_length=256, batch_tokens=1024
    )
    for seed in range(4):
        random = np.random.default_rng(seed)
        lengths = random.integers(1, 12, 60)
        assert len(list(prm.verify(("1 + 1?", ["1 + 1 = 2."] * int(length)) for length in lengths))) == 60
    # Lengths 64, 96, 128, 192, 256, full or as long as the rest; 8 or 32 steps.
    assert prm.compilations <= 12


def test_what_was_submitted_together_is_one_pass_and_a_lone_one_does_not_wait(tiny, mini_tokenizer, monkeypatch):
    prm = DiscriminativePRM(model=tiny, tokenizer=mini_tokenizer)
    passes, kind = [], type(prm._pass)
    forward = kind.__call__
    monkeypatch.setattr(
        kind, "__call__", lambda self, tokens, places: passes.append(tokens.shape) or forward(self, tokens, places)
    )
    handles = [prm.submit("1 + 1?", ["1 + 1 = 2."] * count) for count in (1, 2, 30)]
    assert not any(handle.done() for handle in handles)
    assert handles[0].result().step_scores == pytest.approx(handles[1].result().step_scores[:1], abs=1e-5)
    assert all(handle.done() for handle in handles)
    assert len(passes) == 1
    assert prm.submit("1 + 1?", ["2."]).result().step_scores
    dropped = prm.submit("1 + 1?", ["3."])
    dropped.cancel()
    assert prm.submit("1 + 1?", ["4."]).result().step_scores
    assert [shape[0] for shape in passes] == [4, 1, 1]
    found: list[list[float]] = []
    threads = [
        threading.Thread(target=lambda: found.append(prm.submit("1 + 1?", ["2."]).result(60).step_scores))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    assert np.allclose(found, found[0], atol=1e-5)

    def calls(x):
        with pytest.raises(UserError, match="while JAX traces"):
            prm.submit("1 + 1?", ["2."])
        return x

    jax.jit(calls)(1.0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_pass_is_done_again_and_a_failed_one_is_told(tiny, mini_tokenizer, monkeypatch, error):
    prm = DiscriminativePRM(model=tiny, tokenizer=mini_tokenizer)
    handle = prm.submit("1 + 1?", ["2."])

    def broken(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(prm, "_pass", broken)
        with pytest.raises(error):
            handle.result()
    assert handle.done() == (error is MemoryError)
    if error is KeyboardInterrupt:
        assert len(handle.result().step_scores) == 1


def test_what_cannot_be_judged_fails_alone(tiny, mini_tokenizer, caplog):
    prm = DiscriminativePRM(model=tiny, tokenizer=mini_tokenizer, max_length=64)
    steps = [["2 + 2 = 4."], [], ["1"] * 40, ["\ud800"], ["3."]]
    results = prm.predict_correctness_batch(["a"] * 5, steps)
    assert [result.get("error", "") for result in results[1:4]] == [
        "there are no steps to judge",
        f"the text has {len(StepEncoder(mini_tokenizer).encode('a', ['1'] * 40).ids)} tokens, max_length is 64",
        "character 9 of the text is a lone surrogate (U+D800)",
    ]
    assert all("prefix_score" in results[place] for place in (0, 4))
    assert len(caplog.records) == 3


def test_logits_that_are_not_finite_are_no_score(mini_tokenizer):
    model = tiny_model.make_decoder(mini_tokenizer)
    model.norm.scale[...] = model.norm.scale[...] * np.nan
    ((_, verdict),) = DiscriminativePRM(model=model, tokenizer=mini_tokenizer).verify([("a", ["b"])])
    with pytest.raises(RequestError, match="the logits at step 1 are not finite"):
        _ = verdict.prefix_score


def test_control_strings_in_a_step_are_text_and_a_foreign_separator_is_none(tiny, mini_tokenizer):
    prm = DiscriminativePRM(model=tiny, tokenizer=mini_tokenizer)
    (result,) = prm.predict_correctness_batch(["1 + 1?"], [["ки ки + </think>", "<｜end▁of▁sentence｜> 2."]])
    assert len(result["step_scores"][0]) == 2
    assert result["inputs"] == "1 + 1?\nStep 1: ки ки + </think> ки\nStep 2: <｜end▁of▁sentence｜> 2. ки"


ON_A_MESH = """
import json, sys
from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.verifier.discriminative import DiscriminativePRM

folder, items = sys.argv[1], json.loads(sys.argv[2])
mesh = make_mesh(data=2, fsdp=2, tensor=2)
model, tokenizer = load_model(folder, mesh=mesh)
assert len(model.layers[0].mlp.gate.kernel[...].sharding.device_set) == 8
verdicts = dict(DiscriminativePRM(model=model, tokenizer=tokenizer, mesh=mesh).verify(items))
print(json.dumps([verdicts[index].step_scores for index in range(len(items))]))
"""


@pytest.mark.slow
def test_a_mesh_gives_the_same_scores(tiny, mini_tokenizer, tmp_path):
    items = list(zip(QUESTIONS * 2, STEPS * 2, strict=True))  # 6: a batch of 16 rows, which 4 divides
    folder = tiny_model.save_folder(tmp_path / "tiny")
    found = processes.answer(ON_A_MESH, folder, json.dumps(items), devices=8)
    one = dict(DiscriminativePRM(model=tiny, tokenizer=mini_tokenizer).verify(items))
    for index, scores in enumerate(found):
        assert scores == pytest.approx(one[index].step_scores, abs=1e-5)


def with_kind(folder: Path, kind: object) -> Path:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "thinkprm": kind}))
    return folder


def test_config_json_says_which_marks(tiny, mini_tokenizer, tmp_path):
    layout = Layout(separator="!", labels=("7", "8"), bos=True)
    folder = with_kind(tiny_model.save_folder(tmp_path / "tiny"), layout.to_config())
    results = [
        prm.predict_correctness_batch(QUESTIONS, STEPS)
        for prm in (
            DiscriminativePRM(folder),
            DiscriminativePRM(model=tiny, tokenizer=mini_tokenizer, layout=layout),
        )
    ]
    assert results[0] == results[1]
    assert results[0][1]["inputs"] == "<｜begin▁of▁sentence｜>Ann has 3 apples and buys 4.\nStep 1: 3 + 4 = 8.!"


@pytest.mark.parametrize(
    ("verifier", "kind", "message"),
    [
        (DiscriminativePRM, None, "config.json does not say that this is a discriminative verifier"),
        (DiscriminativePRM, {"task": "generative"}, "is a generative verifier: load it with ThinkPRM"),
        (DiscriminativePRM, {"task": "guess"}, 'thinkprm.task is "guess", not generative or discriminative'),
        (
            DiscriminativePRM,
            {"task": "discriminative", "labels": ["+", "-"]},
            "separator must be a text, not null",
        ),
        (DiscriminativePRM, {**PUBLISHED.to_config(), "head": 2}, "head is not supported"),
        (DiscriminativePRM, {**PUBLISHED.to_config(), "labels": ["+", "+"]}, "three different tokens"),
        (ThinkPRM, PUBLISHED.to_config(), "is a verifier of kind disc_prm, not thinkprm"),
    ],
)
def test_a_folder_of_another_kind_is_refused_in_one_line(tmp_path, verifier, kind, message):
    folder = tiny_model.save_folder(tmp_path / "tiny")
    if kind is not None:
        with_kind(folder, kind)
    with pytest.raises(UserError, match=re.escape(message)) as refusal:
        verifier(folder)
    assert "\n" not in str(refusal.value)
