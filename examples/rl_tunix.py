"""GRPO in Tunix with a verifier as its reward: the bundled solver learns on, and no answers are known.

    pip install -e . "google-tunix==0.1.7"
    python examples/rl_tunix.py [--reward score|steps|rule] [--steps 12] [--seed 0]

`score` rewards P(all steps correct), `steps` the share of the steps before the first error; `rule` rewards the
right answer, which the verifier does not know. The policy is Tunix's Qwen2 with the weights of `mini-solver`.
"""

from __future__ import annotations

import argparse
import itertools

import jax
import numpy as np
import optax
from transformers import PreTrainedTokenizerFast
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

from thinkprm_jax import Sampler, ThinkPRM, answers_equal, extract_answer, load_model
from thinkprm_jax.arithmetic.task import make_solution, solution_problem
from thinkprm_jax.checkpoint.weights import BUNDLED
from thinkprm_jax.rewards.tunix import load_qwen2, weights_of

PROBLEMS, GENERATIONS = 8, 8  # of a step, of a problem


def main() -> None:
    parser = argparse.ArgumentParser(description="GRPO in Tunix, with a verifier as its reward.")
    parser.add_argument("--reward", choices=("score", "steps", "rule"), default="score")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--held-out", type=int, default=400, help="problems that measure the policy")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model, ours = load_model("mini-solver")
    sampler = Sampler(model, ours, slots=64, max_length=128)
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    policy, prm = load_qwen2("mini-solver", mesh), ThinkPRM("mini", mesh=mesh, slots=64, max_length=512)
    rollout = RolloutConfig(max_tokens_to_generate=64, max_prompt_length=24, kv_cache_size=88, temperature=1.2)

    def batches(seed: int, size: int, count: int = 1):  # expressions that the solver has not seen
        indexes = (i for i in itertools.count() if solution_problem(seed, i, "test").family == "expression")
        for step in range(count):
            rollout.seed = 1000 * seed + step  # else all steps sample with the same random numbers
            rows = [make_solution(seed, index, "test") for index in itertools.islice(indexes, size)]
            prompts = [ours.render_chat([{"role": "user", "content": row.problem}]) for row in rows]
            found = prompts, [row.problem for row in rows], [row.answer for row in rows]
            yield dict(zip(("prompts", "problem", "answer"), map(np.asarray, found), strict=True))

    def right(completions: list[str], answers: list[str]) -> list[float]:
        return [float(answers_equal(extract_answer(a), b)) for a, b in zip(completions, answers, strict=True)]

    def rule(prompts: list[str], completions: list[str], answer: list[str], **columns: object) -> list[float]:
        return right(completions, answer)

    def accuracy(policy: object) -> float:
        [held_out] = batches(1, options.held_out)
        sampler.update_weights(weights_of(policy))
        found = sampler.generate(held_out["prompts"].tolist(), temperature=1.2, max_new_tokens=64)
        return sum(right([one.text for [one] in found], held_out["answer"])) / options.held_out

    adam = optax.adam(optax.linear_schedule(0.0, options.learning_rate, 3))
    training = RLTrainingConfig(actor_optimizer=adam, eval_every_n_steps=1000, max_steps=options.steps)
    roles = dict.fromkeys((Role.ACTOR, Role.ROLLOUT), mesh)
    config = ClusterConfig(role_to_mesh=roles, training_config=training, rollout_config=rollout)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BUNDLED["mini-solver"], pad_token="<think>")  # not the end
    reward = rule if options.reward == "rule" else prm.reward(form=options.reward, digits=1, on_error=0.0)
    rl, before = RLCluster(actor=policy, tokenizer=tokenizer, cluster_config=config), accuracy(policy)
    learner = GRPOLearner(rl, GRPOConfig(num_generations=GENERATIONS, beta=0.0), reward)
    learner.train(batches(2 + options.seed, PROBLEMS, options.steps))
    print(f"{options.reward}, seed {options.seed}: {before:.3f} -> {accuracy(rl.actor_trainer.model):.3f}")


if __name__ == "__main__":
    main()
