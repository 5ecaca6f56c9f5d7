"""Verdicts, not only tokens: real solutions judged by this package and by the same protocol over its peers.

    python benchmarks/verdicts.py MODEL ROWS [--rows 64] [--n 4] [--python PEERS/bin/python]

MODEL is a GGUF file or a Hugging Face folder, ROWS a file of ProcessBench rows (problem, steps); --rows of them
are taken, evenly from the whole file. The protocol is the package's own script of a chain (think, be made to
decide, give every step a verdict); its phases are carried out by

    thinkprm_jax     `thinkprm score` as a user runs it: once with an empty compilation cache, once with a warm one
    transformers     `generate` with 16 chains a batch, padded on the left, and one forward pass for each question
    llama.cpp        its server (see peers.py), a thread for each of 16 chains, prefixes kept by the server

Each is a process of its own, one after the other: seconds to the first verdict and to the last count from its
start, with what it imports, loads and compiles. CPU seconds are of all its processes and cores. Chains are
sampled, so that the verdicts of two programs differ in their draws.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from verdict_chains import Chain, prepared, write_row

HERE = Path(__file__).parent
SLOTS = 16
NAMES = ("thinkprm_jax, cold", "thinkprm_jax, warm", "transformers", "llama.cpp")


# transformers


def with_transformers(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, LogitsProcessor, StoppingCriteria

    from thinkprm_jax.sampler.request import Think

    tokenizer, chains = prepared(options, rows)
    dtype = getattr(torch, options.dtype)
    model = AutoModelForCausalLM.from_pretrained(Path(options.files) / "hf", dtype=dtype).eval()

    class Watching(LogitsProcessor):
        """Keeps the log-probabilities of the watched ids at every position."""

        def __init__(self, ids: Sequence[int]) -> None:
            self.ids, self.seen = list(ids), []

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            logprobs = torch.log_softmax(scores.float(), -1)[:, self.ids]
            self.seen.append(logprobs)
            return scores

    class Texts(StoppingCriteria):
        """Ends a row at a stop text."""

        def __init__(self, texts: Sequence[str], start: int) -> None:
            self.texts, self.start = texts, start

        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            tails = input_ids[:, max(self.start, input_ids.shape[1] - 24) :].tolist()
            ends = [any(text in tokenizer.decode(tail) for text in self.texts) for tail in tails]
            return torch.tensor(ends, device=input_ids.device)

    def think(batch: list[Chain]) -> None:
        length = max(len(chain.context) for chain in batch)
        ids = torch.tensor([[0] * (length - len(c.context)) + c.context for c in batch])
        mask = torch.tensor([[0] * (length - len(c.context)) + [1] * len(c.context) for c in batch])
        budgets = [chain.budget(options.max_length) for chain in batch]
        watching = Watching(batch[0].phase.watch)
        torch.manual_seed(batch[0].seed)
        out = model.generate(
            ids, attention_mask=mask, do_sample=True, temperature=0.6, top_p=1.0, top_k=0, repetition_penalty=1.0,
            max_new_tokens=max(budgets), eos_token_id=list(batch[0].phase.stop_ids),
            pad_token_id=batch[0].phase.stop_ids[-1],  # what stands behind an end is cut off
            logits_processor=[watching], stopping_criteria=[Texts(batch[0].phase.stop_texts, length)],
        )  # fmt: skip
        watched = torch.stack(watching.seen, 1).numpy()
        for place, (chain, budget) in enumerate(zip(batch, budgets, strict=True)):
            new = out[place, length:].tolist()
            chain.think(new[:budget], watched[place][:budget], tokenizer)

    def choose(batch: list[Chain]) -> None:
        asked = [(chain, option) for chain in batch for option in chain.phase.ids]
        options_ = [(chain, option if isinstance(option, tuple) else (option,)) for chain, option in asked]
        # Options of one token share a pass; what is padded on the right is not seen by what stands before it.
        texts = list(dict.fromkeys((*chain.context, *option[:-1]) for chain, option in options_))
        length = max(map(len, texts))
        with torch.inference_mode():
            states = model.model(torch.tensor([[*t, *[0] * (length - len(t))] for t in texts]))[0]
            place = {text: i for i, text in enumerate(texts)}
            totals: dict[int, list[float]] = {}
            for chain, option in options_:
                row = states[place[(*chain.context, *option[:-1])]]
                begin = len(chain.context) - 1
                logits = model.lm_head(row[begin : begin + len(option)]).float()
                chosen = torch.log_softmax(logits, -1)[torch.arange(len(option)), list(option)]
                totals.setdefault(id(chain), []).append(float(chosen.sum()))
        for chain in batch:
            chain.send(np.float32(totals[id(chain)]))

    for group in groups(chains, SLOTS // options.n):
        alive = [chain for row in group for chain in row]
        while alive:
            for carry_out, kind in ((think, True), (choose, False)):
                batch = [chain for chain in alive if isinstance(chain.phase, Think) == kind]
                if batch:
                    with torch.inference_mode():
                        carry_out(batch)
                alive = [chain for chain in alive if chain.phase is not None]
        for row in group:
            write_row(options.out, row)


def groups(rows: Iterator[list[Chain]], size: int) -> Iterator[list[list[Chain]]]:
    group: list[list[Chain]] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


# llama.cpp


def with_llama(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    from peer_programs import complete

    from thinkprm_jax.sampler.request import Think

    precision = {"float32": "float32", "bfloat16": "float16"}[options.dtype]
    command = [options.python, str(HERE / "peer_programs.py"), "llama.cpp", precision, options.files]
    server = subprocess.Popen(
        [*command, str(os.cpu_count()), str(SLOTS * options.max_length)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    answer = json.loads(server.stdout.readline() or '{"absent": "its process ended"}')
    if "absent" in answer:
        (options.out.with_suffix(".absent")).write_text(answer["absent"])
        return
    tokenizer, chains = prepared(options, rows)

    def think(chain: Chain) -> None:
        [found] = complete(
            answer["url"], prompt=chain.context, n_predict=chain.budget(options.max_length), temperature=0.6,
            top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0, stop=list(chain.phase.stop_texts), seed=chain.seed,
            samplers=["temperature"], cache_prompt=True, return_tokens=True,
        )  # fmt: skip
        ids = found["tokens"]
        if found.get("stop_type") == "word" and found["stopping_word"] not in tokenizer.decode(ids):
            ids = [*ids, *tokenizer.encode_plain(found["stopping_word"], inner=True)]
        if found.get("stop_type") == "eos" and (not ids or ids[-1] not in chain.phase.stop_ids):
            ids = [*ids, chain.phase.stop_ids[-1]]
        chain.think(ids, np.zeros((len(ids), 0), np.float32), tokenizer)

    def choose(chain: Chain) -> None:
        totals = []
        for option in chain.phase.ids:
            ids, total = (option if isinstance(option, tuple) else (option,)), 0.0
            for place, wanted in enumerate(ids):
                total += logprob([*chain.context, *ids[:place]], wanted)
            totals.append(total)
        chain.send(np.float32(totals))

    def logprob(context: list[int], wanted: int) -> float:
        """Of an id; -30 where it is not among the likeliest thousand."""
        [found] = complete(
            answer["url"], prompt=context, n_predict=1, temperature=0.0, n_probs=1_000, cache_prompt=True
        )
        tops = found["completion_probabilities"][0]["top_logprobs"]
        return next((top["logprob"] for top in tops if top["id"] == wanted), -30.0)

    def whole(chain: Chain) -> None:
        while chain.phase is not None:
            (think if isinstance(chain.phase, Think) else choose)(chain)

    with concurrent.futures.ThreadPoolExecutor(SLOTS) as pool:
        waiting = [(row, [pool.submit(whole, chain) for chain in row]) for row in chains]
        for row, futures in waiting:
            for future in futures:
                future.result()
            write_row(options.out, row)
    server.stdin.close()
    server.wait()


# The run


def measured(start: Callable[[], subprocess.Popen[bytes]], out: Path) -> dict[str, Any]:
    """Runs a process to its end; seconds until the first line of ``out``, of all, and of the CPUs."""
    out.unlink(missing_ok=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    process, first = start(), 0.0
    while process.poll() is None:
        if not first and out.exists() and b"\n" in out.read_bytes():
            first = time.perf_counter() - begin
        time.sleep(0.05)
    wall = time.perf_counter() - begin
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    absent = out.with_suffix(".absent")
    if absent.exists():
        return {"absent": absent.read_text()}
    if process.returncode or not out.exists():
        return {"absent": f"ended with status {process.returncode}"}
    return {"first": first or wall, "wall": wall, "cpu": cpu, **read_rows(out)}


def read_rows(out: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    scores, tokens = [], 0
    for row in rows:
        if "verdict" in row:  # of `thinkprm score`
            scores.append(row["verdict"]["prefix_score"])
            tokens += sum(chain["output_tokens"] for chain in row["verdict"]["chains"])
        else:
            scores.append(row["prefix_score"])
            tokens += row["tokens"]
    correct = sum(score >= 0.5 for score in scores)
    return {"rows": len(rows), "tokens": tokens, "correct": correct, "mean score": float(np.mean(scores))}


def fitting(rows: list[dict[str, Any]], folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Those whose prompt leaves room for a whole chain."""
    from thinkprm_jax.protocol.prompts import encode_prompt
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    most = options.max_length - options.max_gen_tokens - 128
    return [row for row in rows if len(encode_prompt(tokenizer, row["problem"], row["steps"])) <= most]


def run(options: argparse.Namespace, folder: Path) -> int:
    from peers import make_files

    files = options.files or folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    make_files(options.model, files)
    every = fitting([json.loads(line) for line in options.data.read_text().splitlines()], files / "hf", options)
    chosen = [every[i * len(every) // options.rows] for i in range(min(options.rows, len(every)))]
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"problem": r["problem"], "steps": r["steps"]}) + "\n" for r in chosen))
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "passive",
        "THINKPRM_JAX_CACHE": str(folder / "compiled"),
    }
    common = {"--n": options.n, "--max-gen-tokens": options.max_gen_tokens, "--max-length": options.max_length}
    settings = [str(item) for pair in common.items() for item in pair]
    log = open(options.log or folder / "log", "a")  # noqa: SIM115
    lines = [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
    for name in options.programs:
        out = folder / f"{name.split(',')[0].split('.')[0]}.jsonl"
        if name.startswith("thinkprm_jax"):
            command = [
                sys.executable, "-m", "thinkprm_jax.cli", "score", str(rows), "--output", str(out), "--model",
                str(files / "hf"), "--temperature", "0.6", "--slots", str(SLOTS), "--seed", "0",
                "--dtype", options.dtype, *settings,
                *options.ours,
            ]  # fmt: skip
        else:
            command = [
                sys.executable, str(HERE / "verdicts.py"), "--engine", name, "--out", str(out), "--files",
                str(files), "--python", options.python, "--dtype", options.dtype, *settings, str(options.model),
                str(rows),
            ]  # fmt: skip
        found = measured(lambda c=command: subprocess.Popen(c, env=environment, stdout=log, stderr=log), out)
        lines.append(table_row(name, options.dtype, found))
        print(lines[-1], file=sys.stderr, flush=True)
    log.close()
    cut = f"{len(chosen)} rows, n = {options.n}, at most {options.max_gen_tokens} tokens a chain"
    print(f"{options.model.name}, {cut}, {SLOTS} chains at a time\n")
    print("\n".join(lines))
    return 0


HEADS = (
    "program", "dtype", "s to the first verdict", "s in all", "CPU s", "verdicts", "of them correct", "mean score",
    "sampled tokens", "tokens/s", "CPU ms a token",
)  # fmt: skip


def table_row(name: str, dtype: str, found: dict[str, Any]) -> str:
    if "absent" in found:
        return f"| {name} | {dtype} | absent: {found['absent']} |" + " |" * (len(HEADS) - 3)
    tokens = found["tokens"]
    cells = (
        name, dtype, f"{found['first']:.1f}", f"{found['wall']:.1f}", f"{found['cpu']:.1f}", str(found["rows"]),
        str(found["correct"]), f"{found['mean score']:.3f}", f"{tokens:,}", f"{tokens / found['wall']:.1f}",
        f"{1e3 * found['cpu'] / max(tokens, 1):.1f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--max-gen-tokens", type=int, default=256)
    parser.add_argument("--max-length", type=int, default=2_048)
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="llama.cpp: F32 or F16"
    )
    parser.add_argument("--python", default=sys.executable, help="that has xllamacpp")
    parser.add_argument("--programs", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--ours", nargs="*", default=[], help="further options of `thinkprm score`")
    parser.add_argument("--files", type=Path, help="keep the converted files in this folder")
    parser.add_argument("--log", type=Path, help="what the programs print")
    parser.add_argument("--engine", choices=NAMES[2:], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        rows = [json.loads(line) for line in options.data.read_text().splitlines()]
        options.files = str(options.files)
        {"transformers": with_transformers, "llama.cpp": with_llama}[options.engine](options, rows)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return run(options, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
