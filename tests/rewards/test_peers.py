"""The rewards in the hands of verl's and SkyRL's own types, where they are installed."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from support import tiny_model
from thinkprm_jax.errors import UserError
from thinkprm_jax.rewards import skyrl, verl
from thinkprm_jax.sampler import Sampler
from thinkprm_jax.verifier.thinkprm import ThinkPRM

PROBLEM = "Tom has 78 lemons. Tom buys 12 at the market. How many lemons are there now?"
SOLUTION = "78 + 12 = 90.\n\nThe answer is 90."


@pytest.fixture(scope="module")
def prm() -> ThinkPRM:
    model, tokenizer = tiny_model.make_decoder(tiny_model.load_tokenizer(), layers=1), tiny_model.load_tokenizer()
    return ThinkPRM(sampler=Sampler(model, tokenizer, slots=4, max_length=512, chunk=8), max_gen_tokens=16)


def test_tunixs_reward_manager(prm):
    pytest.importorskip("tunix")
    from tunix.rl.grpo.grpo_learner import GRPOConfig
    from tunix.rl.reward_manager import SequenceRewardManager

    manager = SequenceRewardManager([prm.reward(on_error=-1.0, before="<end>")], GRPOConfig(num_generations=2))
    [wanted] = prm.reward()([PROBLEM], [SOLUTION])
    prompts, problems = ["<prompt>"] * 2, np.asarray([PROBLEM] * 2)
    found = manager(prompts, [f"{SOLUTION}<end>", "<end>"], problem=problems, answer=["90"] * 2)
    np.testing.assert_allclose(found["rewards"], [wanted, -1.0], atol=1e-6)


def test_verls_reward_function(prm):
    compute_score = verl.score_function(prm.reward(on_error=-1.0))
    [wanted] = prm.reward()([PROBLEM], [SOLUTION])
    call = {"data_source": "arithmetic", "ground_truth": "90"}
    found = compute_score(solution_str=SOLUTION, extra_info={"question": PROBLEM, "num_turns": 1}, **call)
    assert found == {"score": pytest.approx(wanted, abs=1e-6), "judged": True}
    failed = compute_score(solution_str="", extra_info={"problem": PROBLEM}, reward_router_address=None, **call)
    assert failed == {"score": -1.0, "judged": False}
    with pytest.raises(UserError, match="a row has no problem"):
        compute_score(solution_str="x", extra_info={}, **call)
    with pytest.raises(UserError, match="verl wants a number"):
        verl.score_function(prm.reward())


def test_verls_reward_manager_with_its_data(prm):
    protocol = pytest.importorskip("verl").DataProto
    import torch

    manager_class = verl.reward_manager(lambda: prm.reward(on_error=-1.0))
    ids = prm.tokenizer.encode(SOLUTION)
    responses = torch.zeros((2, len(ids) + 3), dtype=torch.long)
    responses[0, : len(ids)] = torch.tensor(ids)
    responses[1, :2] = torch.tensor(prm.tokenizer.encode("\n\n")[:1] * 2)
    mask = torch.zeros((2, 4 + len(ids) + 3), dtype=torch.long)
    mask[0, : 4 + len(ids)], mask[1, :6] = 1, 1
    data = protocol.from_dict(
        tensors={"prompts": torch.ones((2, 4), dtype=torch.long), "responses": responses, "attention_mask": mask},
        non_tensors={"extra_info": np.array([{"problem": PROBLEM}] * 2, dtype=object)},
    )

    class Decoder:
        def decode(self, ids, skip_special_tokens=False):
            return prm.tokenizer.decode(ids)

    async def run():
        manager = manager_class(None, Decoder(), None, reward_router_address=None)
        return [await manager.run_single(data[index : index + 1]) for index in range(2)]

    found = asyncio.run(run())
    table = manager_class.assemble_rm_scores(data, [one["reward_score"] for one in found])
    [dense] = prm.reward().dense([PROBLEM], [SOLUTION], [ids], prm.tokenizer.decode)
    assert table.shape == responses.shape
    assert table.dtype == torch.float32
    np.testing.assert_allclose(table[0, : len(ids)], dense.at_ends(len(ids)), atol=1e-5)
    assert table[1].tolist() == [0.0, -1.0, *[0.0] * (len(ids) + 1)]
    assert [one["reward_extra_info"]["judged"] for one in found] == [True, False]


def test_skyrls_environment(prm):
    gym = pytest.importorskip("skyrl_gym")

    made = skyrl.environment(lambda: prm.reward(on_error=0.0))
    [wanted] = prm.reward()([PROBLEM], [SOLUTION])
    prompt = [{"role": "user", "content": PROBLEM}]
    env = made(env_config={}, extras={"reward_spec": {"ground_truth": "90"}})
    assert isinstance(env, gym.envs.base_text_env.BaseTextEnv)
    assert env.init(prompt) == (prompt, {})
    step = env.step(SOLUTION)
    assert step["reward"] == pytest.approx(wanted, abs=1e-6)
    assert step["done"]
    assert [SOLUTION[start:end] for start, end in step["metadata"]["step_spans"]] == SOLUTION.split("\n\n")
    assert env.get_metrics() == {"judged": 1.0}
    failed = made(extras={"problem": PROBLEM}).step("")
    assert (failed["reward"], failed["metadata"]) == (0.0, {"judged": False})
