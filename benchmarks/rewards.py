"""What a policy learns from which reward: GRPO in Tunix on the arithmetic task, several seeds.

    python benchmarks/rewards.py --output FILE.jsonl [--rewards rule score steps] [--seeds 0 1 2]
    python benchmarks/rewards.py --output FILE.jsonl --shapes new --temperature 0.8
    python benchmarks/rewards.py --table --output FILE.jsonl

The runs of `examples/rl_tunix.py` in one process: each line of the output is a run, and runs that are in it are
not made again. All begin with the same policy; the training problems are drawn by the seed, the held-out ones are
the same. A run also counts what the reward says of the policy's solutions and what the rule says of them.
`--table` prints the lines as a table, with 95% intervals of the change (bootstrap over problems, paired).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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

HELD_OUT_SEED = 1
LENGTH, PROMPT = 64, 24  # tokens of a solution and of a prompt, at most


class Study:
    """What all runs have in common: the models, the mesh, the held-out problems."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        model, self.tokenizer = load_model("mini-solver")
        self.sampler = Sampler(model, self.tokenizer, slots=64, max_length=128)
        self.mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
        self.prm = ThinkPRM("mini", mesh=self.mesh, slots=64, max_length=512)
        self.held_out = next(self.batches(HELD_OUT_SEED, options.held_out))

    def batches(self, seed: int, size: int) -> Iterator[dict[str, np.ndarray]]:
        """Expressions that the solver has not seen, of shapes that it has learnt, or of two that it has not:
        (a - b) * c and (a - b + c) * d."""
        split = {"learnt": "test", "new": "unseen"}[self.options.shapes]
        indexes = (i for i in itertools.count() if solution_problem(seed, i, split).family == "expression")
        while True:
            rows = [make_solution(seed, index, split) for index in itertools.islice(indexes, size)]
            chats = ([{"role": "user", "content": row.problem}] for row in rows)
            yield {
                "prompts": np.asarray([self.tokenizer.render_chat(chat) for chat in chats]),
                "problem": np.asarray([row.problem for row in rows]),
                "answer": np.asarray([row.answer for row in rows]),
            }

    def solve(self, policy: object) -> dict[str, object]:
        """Of every held-out problem, whether the policy's solution is right; and some solutions."""
        self.sampler.update_weights(weights_of(policy))
        found = self.sampler.generate(
            self.held_out["prompts"].tolist(), temperature=self.options.temperature, max_new_tokens=LENGTH
        )
        texts = [one.text for [one] in found]
        solved = [int(value) for value in right(texts, self.held_out["answer"])]
        return {"solved": solved, "solutions": texts[:8]}

    def run(self, name: str, seed: int) -> dict[str, object]:
        """One run; a line of the output."""
        options, begin = self.options, time.perf_counter()
        means, mixed = [], []
        judge = self.prm.reward(form="score" if name == "rule" else name, digits=1, on_error=0.0)

        def reward(
            prompts: list[str], completions: list[str], answer: list[str], **columns: object
        ) -> list[float]:
            truth = right(completions, answer)
            values = truth if name == "rule" else judge(prompts, completions, **columns)
            means.append((float(np.mean(values)), float(np.mean(truth))))
            mixed.append(float(np.mean(np.ptp(np.reshape(values, (-1, options.generations)), axis=1) > 0)))
            return values

        rollout = RolloutConfig(
            max_tokens_to_generate=LENGTH,
            max_prompt_length=PROMPT,
            kv_cache_size=LENGTH + PROMPT,
            temperature=options.temperature,
        )

        def steps() -> Iterator[dict[str, np.ndarray]]:
            for step, batch in enumerate(
                itertools.islice(self.batches(2 + seed, options.problems), options.steps)
            ):
                rollout.seed = options.steps * seed + step  # else every step samples with the same random numbers
                yield batch

        policy = load_qwen2("mini-solver", self.mesh)
        rate = optax.linear_schedule(0.0, options.learning_rate, options.warmup)
        adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
        training = RLTrainingConfig(actor_optimizer=adam, eval_every_n_steps=1000, max_steps=options.steps)
        roles = dict.fromkeys((Role.ACTOR, Role.ROLLOUT), self.mesh)
        config = ClusterConfig(role_to_mesh=roles, training_config=training, rollout_config=rollout)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(BUNDLED["mini-solver"], pad_token="<think>")
        rl = RLCluster(actor=policy, tokenizer=tokenizer, cluster_config=config)
        GRPOLearner(rl, GRPOConfig(num_generations=options.generations, beta=0.0), reward).train(steps())
        return {
            "reward": name,
            "seed": seed,
            **self.solve(rl.actor_trainer.model),
            "rewards": [round(value, 4) for value, _ in means],
            "truths": [round(value, 4) for _, value in means],
            "mixed_groups": round(float(np.mean(mixed)), 3),
            "judged": judge.counts.judged,
            "not_judged": judge.counts.failed,
            "seconds": round(time.perf_counter() - begin, 1),
        }


def right(completions: list[str], answers: list[str]) -> list[float]:
    found = [extract_answer(text) for text in completions]
    return [float(answers_equal(ours, theirs)) for ours, theirs in zip(found, answers, strict=True)]


def print_table(rows: list[dict[str, object]]) -> None:
    [start] = [np.array(row["solved"]) for row in rows if row["reward"] == "none"]
    draws = np.random.default_rng(0).integers(len(start), size=(10_000, len(start)))
    print(f"before: {start.mean():.3f} of {len(start)} problems\n")
    print("| reward | after, by seed | change, mean | reward, right answers of the last 5 steps | mixed groups |")
    print("|---|---|---|---|---|")
    for name in dict.fromkeys(str(row["reward"]) for row in rows if row["reward"] != "none"):
        runs = sorted((row for row in rows if row["reward"] == name), key=lambda row: row["seed"])
        after = np.array([row["solved"] for row in runs])
        change = after.mean(axis=0) - start
        low, high = np.percentile(change[draws].mean(axis=1), [2.5, 97.5])
        seeds = ", ".join(f"{value:.3f}" for value in after.mean(axis=1))
        ends = [np.mean([row[key][-5:] for row in runs]) for key in ("rewards", "truths")]
        mixed = np.mean([row["mixed_groups"] for row in runs])
        cells = (
            f"{change.mean():+.3f} ({low:+.3f} to {high:+.3f})",
            f"{ends[0]:.2f}, {ends[1]:.2f}",
            f"{mixed:.2f}",
        )
        print(f"| `{name}` | {seeds} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a policy learns from which reward.")
    parser.add_argument("--rewards", nargs="+", default=["rule", "score", "steps"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--problems", type=int, default=8, help="of a step")
    parser.add_argument("--generations", type=int, default=8, help="solutions of a problem")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--warmup", type=int, default=5, help="steps until the learning rate is reached")
    parser.add_argument("--shapes", choices=("learnt", "new"), default="learnt", help="of the problems")
    parser.add_argument("--temperature", type=float, default=1.2, help="of the policy, in training and after it")
    parser.add_argument("--held-out", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=60, help="after these no further run begins")
    parser.add_argument("--output", type=Path, default=Path("runs/rewards.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what is in the output, and run nothing")
    options = parser.parse_args()

    options.output.parent.mkdir(parents=True, exist_ok=True)
    lines = options.output.read_text().splitlines() if options.output.exists() else []
    rows = [json.loads(line) for line in lines]
    if options.table:
        print_table(rows)
        return
    done = {(row["reward"], row["seed"]) for row in rows}
    begin, study = time.perf_counter(), Study(options)
    wanted = [("none", 0), *((name, seed) for seed in options.seeds for name in options.rewards)]
    for name, seed in wanted:
        if (name, seed) in done or time.perf_counter() - begin > 60 * options.minutes:
            continue
        if name == "none":
            row = {"reward": name, "seed": 0, **study.solve(load_qwen2("mini-solver", study.mesh))}
        else:
            row = study.run(name, seed)
        with options.output.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name}, seed {seed}: {np.mean(row['solved']):.3f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
