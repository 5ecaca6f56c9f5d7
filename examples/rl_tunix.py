"""GRPO in Tunix with a verifier as its reward: the bundled solver goes on learning, and no answers are known.

    pip install -e . "google-tunix==0.1.7"
    python examples/rl_tunix.py [--reward score|steps|rule] [--steps 40] [--seed 0]

`score` rewards P(all steps correct), `steps` the share of the steps before the first error; `rule` compares the
answer with the right one, which the verifier does not know. The policy is Tunix's own Qwen2 with the weights of
`mini-solver`. Held-out problems are solved by our sampler, which takes the policy's weights by `update_weights`.
"""

from __future__ import annotations

import argparse

import jax
import numpy as np
import optax
from transformers import PreTrainedTokenizerFast
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

from thinkprm_jax import Sampler, ThinkPRM, answers_equal, extract_answer, load_model
from thinkprm_jax.arithmetic.task import make_solution
from thinkprm_jax.checkpoint.weights import BUNDLED
from thinkprm_jax.rewards.tunix import load_qwen2, weights_of

END, ROWS, GENERATIONS = "<｜end▁of▁sentence｜>", 8, 4  # problems of a step, solutions of a problem


def rule(prompts: list[str], completions: list[str], answer: list[str], **columns: object) -> list[float]:
    found = [extract_answer(text.split(END)[0]) for text in completions]
    return [float(answers_equal(ours, theirs)) for ours, theirs in zip(found, answer, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description="GRPO in Tunix, with a verifier as its reward.")
    parser.add_argument("--reward", choices=("score", "steps", "rule"), default="score")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--held-out", type=int, default=200, help="problems that measure the policy")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    model, ours = load_model("mini-solver")
    sampler = Sampler(model, ours, slots=32, max_length=320)

    def columns(seed: int, count: int, first: int = 0) -> dict[str, np.ndarray]:
        rows = [make_solution(seed, index, "unseen") for index in range(first, first + count)]
        prompts = [ours.render_chat([{"role": "user", "content": row.problem}]) for row in rows]
        found = prompts, [row.problem for row in rows], [row.answer for row in rows]
        return dict(zip(("prompts", "problem", "answer"), map(np.asarray, found), strict=True))

    def accuracy(policy: object) -> float:
        sampler.update_weights(weights_of(policy))
        held_out = columns(1, options.held_out)
        found = sampler.generate(held_out["prompts"].tolist(), temperature=0.8, max_new_tokens=128)
        return sum(rule([], [one.text for [one] in found], held_out["answer"])) / options.held_out

    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    policy, reference = load_qwen2("mini-solver", mesh), load_qwen2("mini-solver", mesh)
    reward = rule
    if options.reward != "rule":  # on the policy's mesh
        prm = ThinkPRM("mini", mesh=mesh, slots=32, max_length=1024)
        reward = prm.reward(form=options.reward, on_error=0.0, before=END)
    adam = optax.adam(options.learning_rate)
    training = RLTrainingConfig(actor_optimizer=adam, eval_every_n_steps=1000, max_steps=options.steps)
    rollout = RolloutConfig(max_tokens_to_generate=128, max_prompt_length=128, kv_cache_size=384, temperature=0.8)
    roles = dict.fromkeys((Role.ACTOR, Role.ROLLOUT, Role.REFERENCE), mesh)
    config = ClusterConfig(role_to_mesh=roles, training_config=training, rollout_config=rollout)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BUNDLED["mini-solver"], pad_token="<think>")  # not the end
    rl = RLCluster(actor=policy, reference=reference, tokenizer=tokenizer, cluster_config=config)
    before = accuracy(policy)
    learner = GRPOLearner(rl, GRPOConfig(num_generations=GENERATIONS, beta=0.02), reward)
    learner.train([columns(2 + options.seed, ROWS, step * ROWS) for step in range(options.steps)])
    print(f"{options.reward}, seed {options.seed}: {before:.3f} -> {accuracy(rl.actor_trainer.model):.3f}")


if __name__ == "__main__":
    main()
