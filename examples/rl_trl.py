"""GRPO in TRL, on a CPU, with a verifier as its reward: in this process, or a server's.

    pip install -e . torch trl
    python examples/rl_trl.py [--server http://localhost:8000] [--steps 20]

The policy is the bundled solver as a transformers model; it sees chats. `thinkprm serve` starts the server. TRL
takes a reward of None where a completion cannot be judged: that one then has no part in the step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from thinkprm_jax import Client, ThinkPRM, load_model, save_model
from thinkprm_jax.arithmetic.task import make_solution


def main() -> None:
    parser = argparse.ArgumentParser(description="GRPO in TRL, with a verifier as its reward.")
    parser.add_argument("folder", nargs="?", default="runs/rl_trl", type=Path)
    parser.add_argument("--server", help="address of `thinkprm serve`")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--problems", type=int, default=8, help="of a step")
    parser.add_argument("--generations", type=int, default=8, help="solutions of a problem")
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    options = parser.parse_args()

    start = options.folder / "start"
    if not start.exists():
        save_model(*load_model("mini-solver"), start)  # as transformers loads it
    policy = AutoModelForCausalLM.from_pretrained(start)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(start, padding_side="left")
    rows = [make_solution(2, index, "unseen") for index in range(options.steps * options.problems)]
    chats = [[{"role": "user", "content": row.problem}] for row in rows]

    prm = Client(options.server) if options.server else ThinkPRM("mini", slots=32, max_length=1024)
    reward = prm.reward(digits=1)  # GRPO divides by the spread of a group: 1e-5 and 2e-5 must be one
    config = GRPOConfig(
        output_dir=str(options.folder / "run"),
        max_steps=options.steps,
        per_device_train_batch_size=options.problems * options.generations,
        num_generations=options.generations,
        max_completion_length=128,
        temperature=0.8,
        learning_rate=options.learning_rate,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": chats}),
        processing_class=tokenizer,
    )
    trainer.train()
    policy.save_pretrained(options.folder / "end")
    means = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    print(f"reward {means[0]:.3f} -> {means[-1]:.3f} ({reward.counts.judged} judged, {reward.counts.failed} not)")


if __name__ == "__main__":
    main()
