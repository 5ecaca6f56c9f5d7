"""A search of your own, with a verifier as its scorer: a greedy search by steps in thirty lines.

    python examples/own_search.py

At every step a generator proposes a few next steps, the verifier scores each of the longer solutions, and the best
one is kept. Any generator will do; here it is the bundled solver on the library's own sampler.
"""

from __future__ import annotations

import argparse

from thinkprm_jax import Sampler, ThinkPRM, load_model

PROBLEM = "Tom has 78 lemons. Tom buys 12 at the market. Tom collects 4 more. How many lemons are there now?"


class Proposer:
    """Next steps of a solution, from a model that was trained to separate steps by blank lines."""

    def __init__(self, name: str, candidates: int) -> None:
        model, self.tokenizer = load_model(name, dtype="float32")
        self.sampler = Sampler(model, self.tokenizer, slots=candidates, max_length=512)
        self.candidates = candidates

    def __call__(self, problem: str, steps: list[str], seed: int) -> list[str]:
        prompt = self.tokenizer.render_chat([{"role": "user", "content": problem}])
        prompt += "".join(step + "\n\n" for step in steps)
        [completions] = self.sampler.generate(
            [prompt], max_new_tokens=64, temperature=0.8, stop=["\n\n"], n=self.candidates, seed=seed
        )
        return sorted({completion.text.strip() for completion in completions} - {""})


def main() -> None:
    parser = argparse.ArgumentParser(description="A greedy search by steps.")
    parser.add_argument("problem", nargs="?", default=PROBLEM)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--most-steps", type=int, default=8)
    options = parser.parse_args()

    propose, prm = Proposer("mini-solver", options.candidates), ThinkPRM("mini")
    steps: list[str] = []
    for depth in range(options.most_steps):
        longer = [[*steps, step] for step in propose(options.problem, steps, seed=depth)]
        if not longer:
            break
        results = prm.predict_correctness_batch([options.problem] * len(longer), longer)
        score, steps = max(zip([result.get("prefix_score", 0.0) for result in results], longer, strict=True))
        print(f"{score:.3f}  {steps[-1]}")
        if "\\boxed{" in steps[-1]:
            break


if __name__ == "__main__":
    main()
