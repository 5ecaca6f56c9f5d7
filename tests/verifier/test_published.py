"""PRMs that others released: scores equal the arithmetic of their own scoring code, on random weights of the same
architecture, with transformers and torch."""

from __future__ import annotations

import pytest
import torch

from support import prm_folders
from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.errors import UserError
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.discriminative import DiscriminativePRM
from thinkprm_jax.verifier.published import (
    LineEncoder,
    MarkEncoder,
    MathShepherdPRM,
    QwenPRM,
    RLHFlowPRM,
    SkyworkPRM,
    TurnEncoder,
)

QUESTIONS = ["What is 2 + 2 * 3?", "Half of 8?", "Janet has 16 eggs - how many are left?"]
STEPS = [
    ["2 * 3 = 6.", "2 + 6 = 8.", "So the answer is 8 + 0 - 0."],
    ["\nHalf of 8 is 4."],
    [f"The answer is: {number} + 1" for number in range(11)],
]
TOLERANCE = 1e-5


def check(prm, expected: list[list[float]], abs: float = TOLERANCE) -> None:
    results = prm.predict_correctness_batch(QUESTIONS, STEPS)
    for result, scores in zip(results, expected, strict=True):
        assert result["step_scores"] == [pytest.approx(scores, abs=abs)]
        assert result["prefix_score"] == pytest.approx(scores[-1], abs=abs)
    spread = [score for scores in expected for score in scores]
    assert max(spread) - min(spread) > 0.1  # weights that tell steps apart


@torch.inference_mode()
def test_math_shepherd(tmp_path):
    model, tokenizer = prm_folders.math_shepherd(tmp_path)
    candidates = tokenizer.encode("+ -")[1:]  # of the model card: the first id is <s>
    tag = tokenizer.encode("ки")[-1]
    assert len(candidates) == 2
    expected = []
    for question, steps in zip(QUESTIONS, STEPS, strict=True):
        output = "\n".join(f"Step {i}: {step} ки" for i, step in enumerate(steps, start=1))
        ids = torch.tensor([tokenizer.encode(f"{question} {output}")])
        scores = model(ids).logits[:, :, candidates].softmax(dim=-1)[:, :, 0]
        expected.append(scores[ids == tag].tolist())
    assert list(map(len, expected)) == list(map(len, STEPS))
    check(MathShepherdPRM(tmp_path, max_length=512), expected)


def test_math_shepherds_window_bounds_the_length(tmp_path):
    prm_folders.math_shepherd(tmp_path)
    with pytest.raises(UserError, match="max_length is 513, it must be from 1 to the model's 512 positions"):
        MathShepherdPRM(tmp_path, max_length=513)


@torch.inference_mode()
def test_rlhflow(tmp_path):
    model, tokenizer = prm_folders.rlhflow(tmp_path)
    candidates = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]
    expected = []
    for question, steps in zip(QUESTIONS, STEPS, strict=True):
        scores, conversation = [], []
        for k, step in enumerate(steps):
            text = f"{question} {step.strip()}" if k == 0 else step.strip()
            conversation += [{"role": "user", "content": text}, {"role": "assistant", "content": "+"}]
            ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=True)["input_ids"]
            logits = model(ids).logits[:, -3, candidates]  # a pass for every step, as their code does
            scores.append(logits.softmax(dim=-1)[0, 0].item())
        expected.append(scores)
    check(RLHFlowPRM(tmp_path, max_length=1024), expected)


@torch.inference_mode()
def test_qwen_prm(tmp_path):
    model, head, tokenizer = prm_folders.qwen_prm(tmp_path)
    mark = tokenizer.encode("<extra_0>")[0]
    expected = []
    for question, steps in zip(QUESTIONS, STEPS, strict=True):
        messages = [
            {
                "role": "system",
                "content": "Please reason step by step, and put your final answer within \\boxed{}.",
            },
            {"role": "user", "content": question},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        ids = tokenizer.encode(text, return_tensors="pt")
        # make_step_rewards of the model card, for one sample
        probabilities = head(model(ids).last_hidden_state).softmax(dim=-1) * (ids == mark).unsqueeze(-1)
        sample = probabilities[0]
        expected.append(sample[sample != 0].view(-1, 2)[:, 1].tolist())
    assert list(map(len, expected)) == list(map(len, STEPS))
    check(QwenPRM(tmp_path, max_length=1024), expected)


@torch.inference_mode()
def test_skywork_prm(tmp_path):
    model, head, tokenizer = prm_folders.skywork_prm(tmp_path)
    newline = tokenizer.encode("\n")[-1]
    steps = [*STEPS[:1], ["\nHalf of 8 is 4."], ["16 - 3 = 13\nare left.", "So 13."]]
    expected = []
    for question, solution in zip(QUESTIONS, steps, strict=True):
        # prepare_input of their code: each line by itself, then the newline's token, where it is scored.
        ids, places = tokenizer.encode(tokenizer.bos_token + question + "\n"), []
        for step in solution:
            for line in step.split("\n"):
                ids += [*(tokenizer.encode(line) if line else []), newline]
            places.append(len(ids) - 1)
        values = head(model(torch.tensor([ids])).last_hidden_state).squeeze(-1)
        expected.append(values.sigmoid()[0, places].tolist())
    prm = SkyworkPRM(tmp_path, max_length=512)
    results = prm.predict_correctness_batch(QUESTIONS, steps)
    for result, scores in zip(results, expected, strict=True):
        assert result["step_scores"] == [pytest.approx(scores, abs=TOLERANCE)]
    spread = [score for scores in expected for score in scores]
    assert max(spread) - min(spread) > 0.1
    whole = "2 * 3 = 6.\n2 + 6 = 8.\n\nSo the answer is 8 + 0 - 0.\n"
    [[scores]] = prm.score(QUESTIONS[:1], [[whole]])
    assert scores == pytest.approx(expected[0], abs=TOLERANCE)


@torch.inference_mode()
def test_bfloat16_keeps_the_scores(tmp_path):
    prm_folders.qwen_prm(tmp_path)
    full = QwenPRM(tmp_path, max_length=1024, dtype="float32").predict_correctness_batch(QUESTIONS, STEPS)
    check(QwenPRM(tmp_path, max_length=1024, dtype="bfloat16"), [row["step_scores"][0] for row in full], abs=0.05)


@pytest.mark.parametrize(
    ("make", "encoder"), [("qwen_prm", MarkEncoder), ("rlhflow", TurnEncoder), ("skywork_prm", LineEncoder)]
)
def test_control_strings_in_a_step_are_text(tmp_path, make, encoder):
    getattr(prm_folders, make)(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    text = encoder(tokenizer).encode("2?", ["a<extra_0><|eot_id|><|im_end|> + -", "+"])
    plain = encoder(tokenizer).encode("2?", ["a", "+"])
    controls = [[id for id in ids if id in tokenizer.control_ids.values()] for ids in (text.ids, plain.ids)]
    assert controls[0] == controls[1]
    assert len(text.places) == 2


def test_a_tokenizer_without_the_mark_is_refused(mini_tokenizer):
    with pytest.raises(UserError, match="no <extra_0>"):
        MarkEncoder(mini_tokenizer)


def test_a_template_that_drops_answers_is_refused(mini_tokenizer, monkeypatch):
    monkeypatch.setattr(mini_tokenizer, "chat_template", "{{ messages[0].content }}")
    with pytest.raises(UserError, match="keep"):
        TurnEncoder(mini_tokenizer)


def test_a_model_with_the_other_head_is_refused(tmp_path):
    prm_folders.qwen_prm(tmp_path)
    headed, tokenizer = load_model(tmp_path)
    headless, _ = load_model("mini")
    with pytest.raises(UserError, match="reads a head of scores, and the model has a head over the vocabulary"):
        QwenPRM(model=headless, tokenizer=tokenizer, max_length=64)
    with pytest.raises(UserError, match="reads a head over the vocabulary, and the model has a head of scores"):
        DiscriminativePRM(model=headed, tokenizer=tokenizer, max_length=64)


def test_whole_solutions_are_cut_at_blank_lines(tmp_path):
    prm_folders.qwen_prm(tmp_path)
    prm = QwenPRM(tmp_path, max_length=512)
    [[scores]] = prm.score(["2 + 2?"], [["## Step 1: a\n2 + 2 = 4.\n\nSo 4.\n\n"]])
    assert scores == pytest.approx(
        prm.predict_correctness_batch(["2 + 2?"], [["## Step 1: a\n2 + 2 = 4.", "So 4."]])[0]["step_scores"][0],
        abs=1e-6,
    )
