"""Rewards: what a trainer hands over, what it gets back, and what cannot be judged."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from support import tiny_model
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.rewards import Reward, token_spans
from thinkprm_jax.sampler import Sampler
from thinkprm_jax.sampler.handle import Handle, StepLoop, finished
from thinkprm_jax.verifier.base import Verdict
from thinkprm_jax.verifier.thinkprm import ThinkPRM

PROBLEM = "Tom has 78 lemons. Tom buys 12 at the market. How many lemons are there now?"
RIGHT, WRONG = "78 + 12 = 90.\n\nThe answer is 90.", "78 + 12 = 90.\n\nThe answer is 80."


class Scripted:
    """A verifier that says what it is told to, by the text of the solution."""

    def __init__(self, **scores: list[float]) -> None:
        self.scores, self.asked = scores, list[tuple[str, str, int | None]]()
        self.loop = StepLoop(self.never, self.never)

    def never(self) -> bool:
        return False

    def submit_solution(self, problem: str, solution: str, step_budget: int | None = None) -> Handle[Verdict]:
        self.asked.append((problem, solution, step_budget))
        if solution == "slow":
            return Handle(self.loop)
        if solution not in self.scores:
            return finished(self.loop, Verdict(error=RequestError("no such solution")))
        spans = tuple((place, place + 1) for place in range(len(self.scores[solution])))
        verdict = Verdict.of_scores(problem, self.scores[solution])
        return finished(self.loop, Verdict(findings=verdict.findings, step_spans=spans))


@pytest.fixture(scope="module")
def prm() -> ThinkPRM:
    model, tokenizer = tiny_model.make_decoder(tiny_model.load_tokenizer(), layers=1), tiny_model.load_tokenizer()
    return ThinkPRM(sampler=Sampler(model, tokenizer, slots=4, max_length=512, chunk=8), max_gen_tokens=16)


def test_texts_and_chats_get_the_verifiers_score(prm):
    [(_, verdict)] = prm.verify([(PROBLEM, ["78 + 12 = 90.", "The answer is 90."])])
    user, assistant = {"role": "user", "content": PROBLEM}, {"role": "assistant", "content": RIGHT}
    chats = [[{"role": "system", "content": "Think."}, user]]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": RIGHT}]}]
    reward = prm.reward()
    wanted = pytest.approx(verdict.prefix_score, abs=1e-6)
    assert reward([PROBLEM], [RIGHT]) == [wanted]
    assert reward(prompts=chats, completions=[[assistant]]) == [wanted]
    assert reward(chats, [parts], completion_ids=[[1]], trainer_state=None) == [wanted]
    assert reward(["<prompt>"], [RIGHT], problem=[PROBLEM]) == [wanted]
    assert prm.reward(problem="question")(["<prompt>"], [RIGHT], question=[PROBLEM]) == [wanted]
    assert prm.reward(after="</think>")([PROBLEM], [f"Well, well.</think>{RIGHT}"]) == [wanted]
    assert prm.reward(before="<end>")([PROBLEM], [f"{RIGHT}<end>more<end>"]) == [wanted]
    assert prm.reward(form="steps", aggregate="min")([PROBLEM], [RIGHT]) == [
        pytest.approx(min(verdict.step_scores), abs=1e-6)
    ]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, 0.25),
        ({"form": "steps"}, 0.625),
        ({"form": "steps", "aggregate": "min"}, 0.25),
        ({"form": "steps", "aggregate": "prod"}, 0.25),
        ({"form": "steps", "aggregate": "last"}, 0.25),
        ({"form": "steps", "digits": 1}, 0.6),
        ({"digits": 0}, 0.0),
    ],
)
def test_forms(settings, wanted):
    assert Reward(Scripted(a=[1.0, 0.25]), **settings)(["p"], ["a"]) == [wanted]


def test_what_cannot_be_judged_is_counted_and_the_others_live(prm):
    reward, logged = prm.reward(on_error=-1.0), dict[str, float]()
    long = "\n\n".join(f"{number} + 1 = {number + 1}." for number in range(400))
    completions = [RIGHT, "", "  \n", long, "a \ud800 b", [{"role": "user", "content": "x"}], None, RIGHT]
    rewards = reward([PROBLEM] * 8, completions, log_metric=logged.__setitem__)
    assert rewards[1:7] == [-1.0] * 6
    assert rewards[0] == rewards[7] >= 0
    assert (reward.counts.judged, reward.counts.failed) == (2, 6)
    assert reward.counts.reasons["there are no steps to judge"] == 2
    assert any("lone surrogate" in reason for reason in reward.counts.reasons)
    assert logged == {"thinkprm_score/not_judged": 6 / 8}
    assert prm.reward()([PROBLEM], [""]) == [None]


def test_equal_completions_are_judged_once():
    judge = Scripted(a=[1.0], b=[0.5])
    assert Reward(judge)(["p", "p", "q", "p"], ["a", "b", "a", "a"]) == [1.0, 0.5, 1.0, 1.0]
    assert judge.asked == [("p", "a", None), ("p", "b", None), ("q", "a", None)]


def test_what_is_late_gets_on_error():
    reward = Reward(Scripted(a=[1.0]), on_error=0.0, timeout=0.05)
    assert reward(["p", "p"], ["slow", "a"]) == [0.0, 1.0]
    assert reward.counts.reasons == {"it was not judged in time": 1}


def test_a_step_budget_ends_the_thinking(prm):
    free = prm.submit_solution(PROBLEM, RIGHT).result()
    short = prm.submit_solution(PROBLEM, RIGHT, step_budget=3).result()
    assert free.output_tokens > short.output_tokens == 6  # of two steps
    assert short.chains[0].finish_reason == "length"
    assert 0 <= short.prefix_score <= 1
    assert prm.reward(step_budget=3)([PROBLEM], [RIGHT]) == [pytest.approx(short.prefix_score, abs=1e-6)]


def test_threads_get_their_own_answers_in_order(prm):
    solutions = [f"{a} + {b} = {a + b}.\n\nThe answer is {a + b}." for a in range(3) for b in range(3)]
    reward = prm.reward()
    alone = [reward([PROBLEM], [solution])[0] for solution in solutions]
    found: dict[int, list[float]] = {}

    def ask(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(solutions))
        values = reward([PROBLEM] * len(order), [solutions[i] for i in order])
        found[seed] = [values[place] for place in np.argsort(order)]

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(3):
        np.testing.assert_allclose(found[seed], alone, atol=1e-5)


def test_dense_rewards_stand_at_the_tokens_of_their_steps(prm):
    tokenizer = prm.tokenizer
    texts = [f"Hm.</think>{RIGHT}", ""]
    ids = [tokenizer.encode(text) for text in texts]
    reward = prm.reward(after="</think>")
    found, nothing = reward.dense([PROBLEM] * 2, texts, ids, tokenizer.decode)
    assert nothing is None
    assert [texts[0][start:end] for start, end in found.spans] == RIGHT.split("\n\n")
    for (first, end), step in zip(found.tokens, RIGHT.split("\n\n"), strict=True):
        assert step in tokenizer.decode(ids[0][first:end])
        assert step not in tokenizer.decode(ids[0][first + 1 : end])
        assert step not in tokenizer.decode(ids[0][first : end - 1])
    row = found.at_ends(len(ids[0]))
    assert [place for place, value in enumerate(row) if value] == [
        end - 1 for (_, end), score in zip(found.tokens, found.scores, strict=True) if score
    ]
    assert sum(row) == pytest.approx(sum(found.scores))
    assert reward.dense([PROBLEM], [texts[0]], [ids[0][:-1]], tokenizer.decode) == [None]
    assert reward.counts.reasons["the ids of the completion do not decode to its text"] == 1


def test_token_spans_of_bytes_and_of_one_token_for_two_steps():
    pieces = ["é".encode()[:1], "é".encode()[1:], b" a.\n\nb", b". "]

    def decode(ids):
        return b"".join(pieces[i] for i in ids).decode(errors="replace")

    text = decode(range(4))
    assert text == "é a.\n\nb. "
    assert token_spans(range(4), text, [(0, 4), (6, 8), (0, 1)], decode) == [(0, 3), (2, 4), (0, 2)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "dense"}, "form is 'dense'"),
        ({"aggregate": "max"}, "aggregate is 'max'"),
        ({"digits": -1}, "digits is -1"),
        ({"step_budget": 0}, "step_budget is 0"),
        ({"timeout": 0}, "timeout is 0"),
    ],
)
def test_a_setting_that_cannot_work(settings, message):
    with pytest.raises(UserError, match=message):
        Reward(Scripted(), **settings)


def test_lists_that_do_not_go_together():
    reward = Reward(Scripted(a=[1.0]))
    with pytest.raises(UserError, match="there are 1 prompts and 2 completions"):
        reward(["p"], ["a", "a"])
    with pytest.raises(UserError, match="completions must be a list, it is str"):
        reward(["p"], "a")
    with pytest.raises(UserError, match="there are 1 prompts and 0 problem"):
        reward(["p"], ["a"], problem=[])
