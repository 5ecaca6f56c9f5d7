"""What a policy learns from which reward: GRPO in Tunix on the arithmetic task, several seeds.

    python benchmarks/rewards.py [--rewards score steps rule] [--seeds 0 1 2] [--output FILE.jsonl]

The runs of `examples/rl_tunix.py` in one process: each line of the output is a run, and runs that are in it are
not made again. All begin with the same policy; the training problems are drawn by the seed, the held-out ones are
the same. A run also counts what the reward says of the policy's solutions and what the rule says of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

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

END = "<｜end▁of▁sentence｜>"
HELD_OUT_SEED = 1


class Study:
    """What all runs have in common: the models, the mesh, the held-out problems."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        model, self.tokenizer = load_model("mini-solver")
        self.sampler = Sampler(model, self.tokenizer, slots=32, max_length=320)
        self.mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
        self.prm = ThinkPRM("mini", mesh=self.mesh, slots=32, max_length=1024)
        self.held_out = self.columns(HELD_OUT_SEED, range(options.held_out))

    def columns(self, seed: int, indexes: range) -> dict[str, np.ndarray]:
        rows = [make_solution(seed, index, "unseen") for index in indexes]
        prompts = [self.tokenizer.render_chat([{"role": "user", "content": row.problem}]) for row in rows]
        return {
            "prompts": np.asarray(prompts),
            "problem": np.asarray([row.problem for row in rows]),
            "answer": np.asarray([row.answer for row in rows]),
        }

    def accuracy(self, policy: object) -> float:
        self.sampler.update_weights(weights_of(policy))
        found = self.sampler.generate(self.held_out["prompts"].tolist(), temperature=0.8, max_new_tokens=128)
        return float(np.mean(right([one.text for [one] in found], self.held_out["answer"])))

    def run(self, name: str, seed: int) -> dict[str, object]:
        """One run; a line of the output."""
        options, means, begin = self.options, [], time.perf_counter()
        judge = self.prm.reward(form="score" if name == "rule" else name, on_error=0.0, before=END)

        def reward(
            prompts: list[str], completions: list[str], answer: list[str], **columns: object
        ) -> list[float]:
            truth = right(completions, answer)
            values = truth if name == "rule" else judge(prompts, completions, **columns)
            means.append((float(np.mean(values)), float(np.mean(truth))))
            return values

        policy, reference = load_qwen2("mini-solver", self.mesh), load_qwen2("mini-solver", self.mesh)
        adam = optax.adam(options.learning_rate)
        training = RLTrainingConfig(actor_optimizer=adam, eval_every_n_steps=1000, max_steps=options.steps)
        rollout = RolloutConfig(
            max_tokens_to_generate=128, max_prompt_length=128, kv_cache_size=384, temperature=0.8
        )
        roles = dict.fromkeys((Role.ACTOR, Role.ROLLOUT, Role.REFERENCE), self.mesh)
        config = ClusterConfig(role_to_mesh=roles, training_config=training, rollout_config=rollout)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(BUNDLED["mini-solver"], pad_token="<think>")
        rl = RLCluster(actor=policy, reference=reference, tokenizer=tokenizer, cluster_config=config)
        learner = GRPOLearner(rl, GRPOConfig(num_generations=options.generations, beta=0.02), reward)
        rows = options.problems
        learner.train([self.columns(2 + seed, range(i * rows, (i + 1) * rows)) for i in range(options.steps)])
        return {
            "reward": name,
            "seed": seed,
            "accuracy": self.accuracy(rl.actor_trainer.model),
            "rewards": [round(value, 4) for value, _ in means],
            "truths": [round(value, 4) for _, value in means],
            "judged": judge.counts.judged,
            "not_judged": judge.counts.failed,
            "seconds": round(time.perf_counter() - begin, 1),
        }


def right(completions: list[str], answers: list[str]) -> list[float]:
    found = [extract_answer(text.split(END)[0]) for text in completions]
    return [float(answers_equal(ours, theirs)) for ours, theirs in zip(found, answers, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description="What a policy learns from which reward.")
    parser.add_argument("--rewards", nargs="+", default=["score", "steps", "rule"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--problems", type=int, default=8, help="of a step")
    parser.add_argument("--generations", type=int, default=4, help="solutions of a problem")
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60, help="after these no further run begins")
    parser.add_argument("--output", type=Path, default=Path("runs/rewards.jsonl"))
    options = parser.parse_args()

    options.output.parent.mkdir(parents=True, exist_ok=True)
    lines = options.output.read_text().splitlines() if options.output.exists() else []
    done = {(row["reward"], row["seed"]) for row in map(json.loads, lines)}
    begin, study = time.perf_counter(), Study(options)
    wanted = [(name, seed) for seed in options.seeds for name in options.rewards]
    if ("none", 0) not in done:
        wanted.insert(0, ("none", 0))
    for name, seed in wanted:
        if (name, seed) in done or time.perf_counter() - begin > 60 * options.minutes:
            continue
        policy = load_qwen2("mini-solver", study.mesh)
        is_start = name == "none"
        row = (
            {"reward": name, "seed": 0, "accuracy": study.accuracy(policy)} if is_start else study.run(name, seed)
        )
        with options.output.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
