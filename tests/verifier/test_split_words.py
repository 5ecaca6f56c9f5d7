"""A base in whose tokenizer the words of a verdict are several tokens can be a verifier like any other."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from support import tiny_model, tiny_training
from support.naive_sampler import NaiveSampler
from support.split_words import split_tokenizer
from thinkprm_jax import cli
from thinkprm_jax.checkpoint.huggingface import BUNDLED
from thinkprm_jax.data.chains import LabelledChain
from thinkprm_jax.data.sources import ChainDataset, ListedChains
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.protocol.prompts import encode_prompt
from thinkprm_jax.sampler import Choose, Force, Request, Sampler, Think, Thought
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.judge import LLMJudge
from thinkprm_jax.verifier.script import ScriptSettings, VerificationScript, first_of_two, word_options
from thinkprm_jax.verifier.thinkprm import ThinkPRM

ITEM = ("1 + 1?", ["1 + 1 = 2.", "So 2."])
CHAIN = (
    "Let's verify step by step:\n\nStep 1: Fine. The step is \\boxed{correct}\n\n"
    "Step 2: Wrong. The step is \\boxed{incorrect}\n"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    found = split_tokenizer(Path(BUNDLED["mini"]), tmp_path_factory.mktemp("split"))
    assert [len(ids) for ids in word_options(found, "correct", "incorrect", " Yes", " No")] == [2, 3, 3, 2]
    return found


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Decoder:
    return tiny_model.make_decoder(tokenizer)


@pytest.fixture(scope="module")
def sampler(model: Decoder, tokenizer: Tokenizer) -> Sampler:
    return Sampler(model, tokenizer, slots=2, max_length=400)


def probability(naive: NaiveSampler, context: list[int], yes: str, no: str) -> float:
    """P(yes) against P(no) behind the context, from whole forward passes."""
    sums = []
    for word in (yes, no):
        ids = naive.tokenizer.encode_inside(word)
        sums.append(sum(naive.logprobs([*context, *ids[:place]])[id] for place, id in enumerate(ids)))
    return 1 / (1 + math.exp(sums[1] - sums[0]))


def test_scores_are_those_of_whole_words(model, tokenizer):
    naive = NaiveSampler(model, tokenizer, max_length=400)
    settings = ScriptSettings(max_gen_tokens=1)
    script = VerificationScript(tokenizer, settings, max_length=400)
    # The chain stands in the prompt, and the thinking is over at once: what is asked then is known.
    prompt = encode_prompt(tokenizer, *ITEM)
    [(_, result)] = Sampler(model, tokenizer, slots=1, max_length=400).run([Request(prompt, lambda: script(2))])
    assert result.error is None
    verdict = result.value
    written = verdict.output.partition("</think>")[0]
    closed = [*prompt, *tokenizer.encode(written + "</think>\nIs the solution correct?")]
    assert verdict.prefix_score == pytest.approx(probability(naive, closed, " Yes", " No"), abs=1e-4)
    assert verdict.step_forced == (True, True)
    assert all(0 < score < 1 for score in verdict.step_scores[:1])


def test_verdicts_that_the_chain_wrote_are_measured_at_their_place(model, tokenizer):
    naive = NaiveSampler(model, tokenizer, max_length=400)
    script = VerificationScript(tokenizer, ScriptSettings(), max_length=400)
    prompt = encode_prompt(tokenizer, *ITEM)

    def forced_chain():
        """The script, with a chain that is given instead of sampled."""
        inner = script(2)
        phase, outcome = next(inner), None
        while True:
            if isinstance(phase, Think):
                assert phase.watch == ()
                ids = tokenizer.encode_plain(CHAIN, inner=True)
                yield Force(ids)
                empty = np.zeros(len(ids), np.float32)
                outcome = Thought(ids, CHAIN, empty, np.zeros((len(ids), 0), np.float32), "stop_id", 0)
            else:
                outcome = yield phase
            try:
                phase = inner.send(outcome)
            except StopIteration as end:
                return end.value

    [(_, result)] = Sampler(model, tokenizer, slots=1, max_length=400).run([Request(prompt, forced_chain)])
    assert result.error is None
    verdict = result.value
    assert verdict.step_labels == (1, 0)
    assert verdict.step_forced == (False, False)
    for number, word in enumerate(("correct", "incorrect")):
        before = CHAIN[: CHAIN.index("\\boxed{" + word) + len("\\boxed{")]
        context = [*prompt, *tokenizer.encode_plain(before, inner=True)]
        expected = probability(naive, context, "correct", "incorrect")
        assert verdict.step_scores[number] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_all_kinds_that_write_take_such_a_model(sampler):
    for verifier in (ThinkPRM(sampler=sampler), LLMJudge(sampler=sampler, force_decision=True)):
        [(_, verdict)] = verifier.verify([ITEM])
        assert verdict.error is None
        assert 0 < verdict.prefix_score < 1


@pytest.mark.parametrize("max_length", range(112, 128, 3))
def test_a_full_context_leaves_room_for_the_words(model, tokenizer, max_length):
    verifier = ThinkPRM(sampler=Sampler(model, tokenizer, slots=1, max_length=max_length))
    [(_, verdict)] = verifier.verify([("1 + 1?", ["So 2."])])
    assert verdict.error is None or "there is no room for a chain" in str(verdict.error)


def test_words_that_are_one_are_refused(tokenizer):
    with pytest.raises(UserError, match="cannot tell ' Yes' and ' Yes' apart"):
        word_options(tokenizer, " Yes", " Yes")


def test_the_judge_measures_the_word_that_it_wrote(model, tokenizer):
    naive = NaiveSampler(model, tokenizer, max_length=400)

    def script():
        return (yield Choose(word_options(tokenizer, "yes", "no")))

    context = tokenizer.encode("\\boxed{")
    [(_, result)] = Sampler(model, tokenizer, slots=1, max_length=400).run([Request(context, script)])
    assert first_of_two(result.value) == pytest.approx(probability(naive, context, "yes", "no"), abs=1e-4)


def test_every_token_of_a_verdict_word_has_its_weight_in_training(tokenizer, mini_tokenizer):
    chain = LabelledChain(*ITEM, CHAIN.strip(), [1, 0], False)
    weighted = {}
    for name, each in (("split", tokenizer), ("whole", mini_tokenizer)):
        example = ChainDataset(1, ListedChains([chain]), each, 400, verdict_weight=5.0)[0]
        assert example is not None
        places = np.flatnonzero(example.weights == 5.0)
        weighted[name] = [each.decode([int(example.ids[place])]) for place in places]
    assert weighted["whole"] == ["correct", "incorrect", " No"]
    assert weighted["split"][:5] == ["correc", "t", "in", "correc", "t"]  # whole words, not pieces of others
    assert "".join(weighted["split"][-2:]) == " No"


@pytest.mark.slow
def test_such_a_base_is_trained_exported_and_scores(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "tokenizer")
    model = {**tiny_training.RECIPE["model"], "tokenizer": str(tmp_path / "tokenizer")}
    recipe = tiny_training.write_recipe(tmp_path, model=model, steps=2, loss={"verdict_weight": 2.0})
    assert cli.main(["train", str(recipe)]) == 0
    assert cli.main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    (tmp_path / "in.jsonl").write_text(json.dumps({"problem": ITEM[0], "steps": ITEM[1]}) + "\n")
    paths = [str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "verdicts.jsonl")]
    options = ["--model", str(tmp_path / "out"), "--max-gen-tokens", "8", "--quiet"]
    assert cli.main(["score", *paths, *options]) == 0
    verdict = json.loads((tmp_path / "verdicts.jsonl").read_text())["verdict"]
    assert 0 < verdict["prefix_score"] < 1
    assert len(verdict["step_scores"]) == 2
