"""Searches with the bundled models, timed.

    python benchmarks/search.py best_of_n [--problems 64] [--n 16]    against transformers, problem by problem
    python benchmarks/search.py beam_search [--problems 32] [--n 16]  time per token, against best-of-N

best_of_n: the same weights, prompts, temperature and limits on both sides. Theirs is the original's way with
transformers' `generate`: one problem after another, its n solutions as one batch, then its n verifications in
batches (left padded, greedy), then one pass for the decisions. Ours is `thinkprm search` without its files. Theirs
samples with torch's own random numbers, so the solutions are others; the table shows how many tokens each side
made and how many solutions it judged (ours judges equal ones once), so time and tokens a second can both be
compared. On our solutions of one problem both give the same scores: the difference is printed.

beam_search: seconds by tokens processed for the first time (generated, forced or prefilled, of both models), and
the generator's count of tokens that were processed again.

Needs the `test` extra (torch, the CPU build) for best_of_n.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from thinkprm_jax.checkpoint.huggingface import BUNDLED
from thinkprm_jax.protocol.prompts import DECISION, NO, THINK_CLOSE, YES, encode_prompt
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.search.approaches import search_of
from thinkprm_jax.search.engine import SearchResult
from thinkprm_jax.search.model_engine import ModelEngine
from thinkprm_jax.search.models import load_models, resolve
from thinkprm_jax.search.problems import Task, load_tasks
from thinkprm_jax.search.recipe import SearchRecipe

VERIFICATION_TOKENS = 512  # of a chain


def recipe_of(approach: str, problems: int, n: int) -> SearchRecipe:
    return resolve(
        SearchRecipe(
            approach=approach,  # type: ignore[arg-type]
            n=n,
            num_iterations=10,
            model_path="mini-solver",
            prm_path="mini",
            system_prompt=None,
            dataset_name="arithmetic",
            num_samples=problems,
            temperature=0.8,
            max_tokens=128,
            max_verification_length=1024,
            max_verification_tokens=VERIFICATION_TOKENS,
            wave=problems,
        )
    )


@dataclasses.dataclass
class Timing:
    """tokens: sampled, of generator and verifier. processed: for the first time, through the layers of either."""

    seconds: float
    tokens: int
    processed: int
    results: list[SearchResult]


class Ours:
    def __init__(self, recipe: SearchRecipe) -> None:
        self.recipe, self.tasks = recipe, load_tasks(recipe)
        self.engine: ModelEngine = load_models(recipe, self.tasks, print)

    def run(self, seed: int) -> Timing:
        assert self.engine.generator is not None
        samplers = [self.engine.generator.sampler, self.engine.verifier.sampler]  # type: ignore[union-attr]
        before = [dataclasses.replace(sampler.stats) for sampler in samplers]
        settings = dataclasses.replace(self.recipe.settings, seed=seed)
        start = time.perf_counter()
        found = dict(search_of(self.recipe)(self.tasks, self.engine, settings))
        seconds = time.perf_counter() - start
        results = [found[place] for place in range(len(self.tasks))]
        processed = sum(
            s.stats.first_time_tokens - b.first_time_tokens for s, b in zip(samplers, before, strict=True)
        )
        tokens = sum(result.generated_tokens + result.verifier_tokens for result in results)
        return Timing(seconds, tokens, processed, results)


class Theirs:
    """The original's way: problem by problem with transformers."""

    def __init__(self, recipe: SearchRecipe, tasks: list[Task], engine: ModelEngine, batch: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.torch, self.recipe, self.tasks, self.batch = torch, recipe, tasks, batch
        assert engine.generator is not None
        self.prompts, self.generator_tokenizer = engine.generator.prompts, engine.generator.sampler.tokenizer
        self.tokenizer = engine.verifier.tokenizer  # type: ignore[union-attr]
        self.generator, self.verifier = (
            AutoModelForCausalLM.from_pretrained(BUNDLED[name], dtype=torch.float32).eval()
            for name in (recipe.model_path, recipe.prm_path)
        )

    def run(self, seed: int) -> tuple[float, int, list[list[float]]]:
        self.torch.manual_seed(seed)
        start, tokens, scores = time.perf_counter(), 0, []
        with self.torch.inference_mode():
            for task in self.tasks:
                texts, written = self.solve(task.problem.text)
                values, judged = self.judge(task.problem.text, texts)
                scores.append(values)
                tokens += written + judged
        return time.perf_counter() - start, tokens, scores

    def solve(self, problem: str) -> tuple[list[str], int]:
        ids = self.torch.tensor([self.prompts(problem)])
        eos = self.generator_tokenizer.eos_id
        out = self.generator.generate(
            ids, attention_mask=self.torch.ones_like(ids), do_sample=True, temperature=self.recipe.temperature,
            top_k=0, top_p=1.0, num_return_sequences=self.recipe.n, max_new_tokens=self.recipe.max_tokens,
            eos_token_id=eos, pad_token_id=eos,
        )  # fmt: skip
        rows = [upto(row, (eos,)) for row in out[:, ids.shape[1] :].tolist()]
        return [self.generator_tokenizer.decode(row) for row in rows], sum(len(row) + 1 for row in rows)

    def judge(self, problem: str, texts: list[str]) -> tuple[list[float], int]:
        tokenizer = self.tokenizer
        close, eos = tokenizer.control_ids[THINK_CLOSE], tokenizer.eos_id
        answers = [tokenizer.token_id(YES), tokenizer.token_id(NO)]
        newline, decision = (tokenizer.encode_plain(text, inner=True) for text in ("\n", DECISION))
        prompts = [encode_prompt(tokenizer, problem, split_solution(text)) for text in texts]
        scores, tokens = [], 0
        for start in range(0, len(prompts), self.batch):
            part = prompts[start : start + self.batch]
            ids, mask = self.padded(part)
            out = self.verifier.generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=VERIFICATION_TOKENS,
                eos_token_id=[close, eos], pad_token_id=eos,
            )  # fmt: skip
            written = out[:, ids.shape[1] :].tolist()
            chains = [upto(row, (close, eos)) for row in written]
            tokens += sum(len(chain) + 1 for chain in chains)
            closed = [close in row for row in written]  # the others are made to end on a line of their own
            ids, mask = self.padded(
                [
                    [*prompt, *chain, *([] if done else newline), close, *decision]
                    for prompt, chain, done in zip(part, chains, closed, strict=True)
                ]
            )
            logits = self.verifier(ids, attention_mask=mask).logits[:, -1, answers]
            scores += logits.softmax(-1)[:, 0].tolist()
        return scores, tokens

    def padded(self, rows: list[list[int]]) -> tuple[Any, Any]:
        width = max(map(len, rows))
        ids = self.torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = self.torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return ids, mask


def upto(row: list[int], ends: tuple[int, ...]) -> list[int]:
    return row[: next((place for place, id in enumerate(row) if id in ends), len(row))]


def best_of_n(options: argparse.Namespace) -> None:
    recipe = recipe_of("best_of_n", options.problems, options.n)
    ours = Ours(recipe)
    theirs = Theirs(recipe, ours.tasks, ours.engine, options.batch)
    cold = ours.run(seed=0)
    runs = [(ours.run(seed), theirs.run(seed)) for seed in range(1, options.repeats + 1)]
    table = Table(title=f"best-of-{options.n}, {options.problems} problems, {jax.devices()[0].device_kind}")
    for column in ("program", "seconds", "sampled tokens", "tokens/s", "verifications"):
        table.add_column(column, justify="left" if column == "program" else "right")

    def row(name: str, seconds: float, tokens: int, verifications: int) -> None:
        table.add_row(name, f"{seconds:.1f}", f"{tokens:,}", f"{tokens / seconds:,.0f}", f"{verifications:,}")

    row("ours, first run (compiles)", cold.seconds, cold.tokens, judged(cold))
    for mine, (seconds, tokens, scores) in runs:
        row("ours", mine.seconds, mine.tokens, judged(mine))
        row("transformers, by problem", seconds, tokens, sum(map(len, scores)))
    console = Console(width=110)
    console.print(table)
    solutions = cold.results[0].solutions
    with theirs.torch.inference_mode():
        scores, _ = theirs.judge(ours.tasks[0].problem.text, [beam.text for beam in solutions])
    difference = max(abs(beam.score("last") - score) for beam, score in zip(solutions, scores, strict=True))
    console.print(f"scores of the same solutions differ by {difference:.1e} at most")
    ratios = [seconds / mine.seconds for mine, (seconds, _, _) in runs]
    rates = [(mine.tokens / mine.seconds) / (tokens / seconds) for mine, (seconds, tokens, _) in runs]
    console.print(
        f"time: {np.median(ratios):.1f} times less ({min(ratios):.1f} to {max(ratios):.1f}); "
        f"tokens a second: {np.median(rates):.1f} times more"
    )


def judged(timing: Timing) -> int:
    return sum(result.verifications for result in timing.results)


def beam_search(options: argparse.Namespace) -> None:
    table = Table(title=f"{options.problems} problems, n {options.n}, {jax.devices()[0].device_kind}")
    for column in ("search", "seconds", "first-time tokens", "µs a token", "processed again", "of forks"):
        table.add_column(column, justify="left" if column == "search" else "right")
    costs: dict[str, list[float]] = {"best_of_n": [], "beam_search": []}
    programs = {name: Ours(recipe_of(name, options.problems, options.n)) for name in costs}
    for program in programs.values():
        program.run(seed=0)  # compiles
    for seed in range(1, options.repeats + 1):
        for name, program in programs.items():
            assert program.engine.generator is not None
            stats = program.engine.generator.sampler.stats
            again, forks = stats.reprefilled_tokens, stats.refed_tokens
            timing = program.run(seed)
            costs[name].append(1e6 * timing.seconds / timing.processed)
            table.add_row(
                name, f"{timing.seconds:.1f}", f"{timing.processed:,}", f"{costs[name][-1]:.1f}",
                f"{stats.reprefilled_tokens - again:,}", f"{stats.refed_tokens - forks:,}",
            )  # fmt: skip
    console = Console(width=110)
    console.print(table)
    ratio = np.median(costs["beam_search"]) / np.median(costs["best_of_n"])
    console.print(
        f"beam search takes {ratio:.2f} times the time of best-of-N for a token. `processed again` and `of forks` "
        "are the generator's: prefix tokens that were prefilled twice, and last tokens of prefixes, which each "
        "fork feeds once more for its logits."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    programs = {"best_of_n": (best_of_n, 64), "beam_search": (beam_search, 32)}
    parser.add_argument("program", choices=programs)
    parser.add_argument("--problems", type=int)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16, help="verifications of a batch of transformers")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    run, problems = programs[options.program]
    options.problems = options.problems or problems
    run(options)


if __name__ == "__main__":
    main()
