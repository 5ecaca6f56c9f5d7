"""The same weights, prompts and lengths through this package and its peers, in turns, in one run.

    python benchmarks/peers.py environment FOLDER                    peers.txt into an environment of its own
    python benchmarks/peers.py run MODEL --python FOLDER/bin/python  MODEL: a GGUF file or a Hugging Face folder

Peers are transformers, ctranslate2, openvino-genai and llama.cpp (its server: `llama-server` from the PATH, or the
package xllamacpp; and the package node-llama-cpp), each in a process of its own, in float32 and in what may be
faster for it. What is not installed is shown as absent. Every program gets every prompt once, and its prefilled
tokens are counted and checked, so that nothing comes out of a cache. Greedy tokens of real texts must agree in
float32; of the others it is told how far they do.

decode    prompts of 128 tokens; a step is (33 new tokens - 1 new token) / 32
prefill   prompts of 1,500 or 16 x 400 tokens, and one new token

Wall milliseconds say what a user waits, CPU milliseconds (of all cores) what it costs: on a machine that does
other work, too, only the latter can be compared between runs. A GGUF file needs the extra `gguf`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

HERE = Path(__file__).parent
TRIED = {  # what each can do; the first is compared token by token
    "thinkprm_jax": ("float32", "bfloat16", "int8"),
    "transformers": ("float32", "bfloat16"),
    "ctranslate2": ("float32", "bfloat16", "int8"),
    "openvino-genai": ("float32", "bfloat16", "int8"),
    "llama.cpp": ("float32", "float16", "int8"),
    "llama.cpp, node": ("float32", "float16", "int8"),
}
GGUF_KINDS = {"float32": "F32", "float16": "F16", "int8": "Q8_0"}
TEXTS = (
    "The sum of the first ten positive integers is",
    "def is_prime(n: int) -> bool:\n",
    "Let $x$ be a real number such that $x^2 - 5x + 6 = 0$. Then",
    "Step 1: 12 * 7 = 84.\nStep 2:",
    "The capital of France is Paris. The capital of Germany is",
    "Once upon a time, in a small village by the sea, there lived",
)
GREEDY_TOKENS = 24
NEW = 33


@dataclasses.dataclass(frozen=True)
class Work:
    """Runs of one kind; a figure is of all of them in one repeat."""

    name: str
    batch: int
    length: int
    new: int


WORK = (
    Work("decode 1", 1, 128, NEW),
    Work("decode 16", 16, 128, NEW),
    Work("prefill 1", 1, 1_500, 1),
    Work("prefill 16", 16, 400, 1),
)


class Program:
    """One peer in one precision, in its process."""

    def __init__(self, name: str, precision: str, command: list[str], threads: int, log: IO[str]) -> None:
        self.name, self.precision = name, precision
        self.absent = ""
        self.prefilled = self.given = 0
        self.agreement = ""
        self.times: dict[str, list[tuple[float, float]]] = {}
        environment = os.environ | {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
        environment |= {"OMP_NUM_THREADS": str(threads)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        try:
            self._process = subprocess.Popen(command, env=environment, text=True, **pipes)
        except OSError as error:
            self.absent = f"{command[0]}: {error.strerror}"
        else:
            self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"absent": f"ended with status {self._process.wait()}"}
        self.absent = answer.get("absent", "")
        return answer

    def ask(self, **order: Any) -> dict[str, Any]:
        if self.absent:
            return {}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def measure(self, work: Work, prompts: list[list[list[int]]]) -> None:
        """Adds (wall, CPU) seconds of a decode step or of a prefill. prompts: of two runs for a decode step."""
        results = []
        for new, batch in zip((1, work.new), prompts, strict=False):
            answer = self.ask(prompts=batch, new=new)
            if self.absent:
                return
            self.prefilled += answer["prefilled"]
            self.given += sum(map(len, batch))
            results.append((answer["wall"], answer["cpu"]))
        if work.new > 1:
            results = [tuple((b - a) / (work.new - 1) for a, b in zip(*results, strict=True))]
        self.times.setdefault(work.name, []).append(results[0])

    def close(self) -> None:
        if not hasattr(self, "_process"):
            return
        assert self._process.stdin is not None
        if self._process.poll() is None:
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()


def command_of(name: str, precision: str, files: Path, options: argparse.Namespace) -> list[str]:
    """What starts a program."""
    threads = str(options.threads)
    if name == "llama.cpp, node":
        file = files / f"{GGUF_KINDS[precision]}.gguf"
        return ["node", str(HERE / "peer_llama.mjs"), str(options.node_modules), str(file), threads]
    python = sys.executable if name == "thinkprm_jax" else options.python
    return [python, str(HERE / "peer_programs.py"), name, precision, str(files), threads]


# The files of the model


def make_files(model: Path, files: Path) -> None:
    """A Hugging Face folder, and of a GGUF file others of other precisions.

    All come from one of float16, so that those in float32 and float16 hold the very same values.
    """
    if model.is_dir():
        (files / "hf").symlink_to(model.resolve())
        return
    from thinkprm_jax import load_model
    from thinkprm_jax.checkpoint.huggingface import save_model

    half = files / "F16.gguf"
    for source, kind in ((model, "F16"), (half, "F32"), (half, "Q8_0")):
        if not (files / f"{kind}.gguf").exists():
            convert_gguf(source, files / f"{kind}.gguf", kind)
    if not (files / "hf").exists():
        save_model(*load_model(half, dtype="float32"), files / "hf")


def convert_gguf(source: Path, target: Path, kind: str) -> None:
    """The same fields and values; matrices in ``kind``, vectors in float32."""
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    own = ("general.architecture", "general.file_type", "general.quantization_version")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in own:
            array = field.types[0] == gguf.GGUFValueType.ARRAY
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if array else None)
    writer.add_file_type(gguf.LlamaFileType[{"F32": "ALL_F32"}.get(kind, f"MOSTLY_{kind}")])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    wanted = gguf.GGMLQuantizationType[kind]
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        dtype = wanted if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quantize(values, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# The run


def compare_greedy(programs: list[Program], files: Path) -> bool:
    """Real texts, greedy: sets ``agreement`` of each; whether all in float32 gave the same tokens.

    Compared is what stands before an end of text, which some programs cannot but suppress.
    """
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(files / "hf" / "tokenizer.json"))
    prompts = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    ends = json.loads((files / "hf" / "config.json").read_text()).get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    agreed, reference, limits = True, None, [GREEDY_TOKENS]
    for program in sorted(programs, key=lambda p: (p.precision != "float32", p.name != "transformers")):
        found = [program.ask(prompts=[prompt], new=GREEDY_TOKENS) for prompt in prompts]
        if program.absent:
            continue
        tokens = [answer["tokens"][0] for answer in found]
        if reference is None:
            reference = tokens
            limits = [next((i for i, id in enumerate(row) if id in ends), len(row)) for row in tokens]
        pairs = zip(tokens, reference, limits, strict=True)
        same = [equal_beginning(row[:limit], other[:limit]) for row, other, limit in pairs]
        program.agreement = f"{sum(same)} of {sum(limits)}"
        if program.precision == "float32" and same != limits:
            print(f"{program.name}: float32 tokens agree up to {same} of {limits} only")
            agreed = False
    return agreed


def equal_beginning(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def run(options: argparse.Namespace, files: Path) -> int:
    begin = time.perf_counter()
    make_files(options.model, files)
    vocabulary = json.loads((files / "hf" / "config.json").read_text())["vocab_size"]
    with open(files / "programs.log", "a") as log:
        programs = [
            Program(name, precision, command_of(name, precision, files, options), options.threads, log)
            for name in options.programs
            for precision in TRIED[name]
        ]
        try:
            agreed = compare_greedy([p for p in programs if not p.absent], files)
            rng = np.random.default_rng(options.seed)
            work = [w for w in WORK if w.name in options.work]
            turn = begin
            for repeat in range(options.repeats + 1):
                if repeat > 1 and 2 * time.perf_counter() - turn - begin > 60 * options.minutes:
                    break  # as long as the last one, it would end too late
                turn = time.perf_counter()
                for task in work:
                    runs = 2 if task.new > 1 else 1
                    prompts = rng.integers(1, vocabulary - 1, (runs, task.batch, task.length)).tolist()
                    for program in [p for p in programs if not p.absent]:
                        if repeat:
                            program.measure(task, prompts)
                        elif program.name == "thinkprm_jax":  # compiles for each shape, the others never do
                            program.ask(warm=True, prompts=prompts[-1], new=task.new)
                        else:
                            program.ask(warm=True, prompts=[prompts[-1][0][:64]], new=4)
                print(f"repeat {repeat} done after {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        finally:
            for program in programs:
                program.close()
    text = table(programs, work, options)
    print(text)
    if options.output:
        rows = [{k: v for k, v in vars(p).items() if not k.startswith("_")} for p in programs]
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\nAll in {time.perf_counter() - begin:.0f} s; log of the programs: {files / 'programs.log'}")
    counted = all(p.prefilled == p.given for p in programs if not p.absent)
    if not counted:
        print("A program did not prefill all that it was given: its figures flatter it.")
    return int(not (agreed and counted))


def table(programs: list[Program], work: list[Work], options: argparse.Namespace) -> str:
    heads = ["program", "precision"]
    for task in work:
        unit = "ms a step" if task.new > 1 else "ms a token"
        heads += [f"{task.batch} x {task.length}, {unit}, wall", "CPU"]
    heads += ["prompt tokens given", "prefilled", "greedy tokens in common from the first on"]
    repeats = max((len(times) for program in programs for times in program.times.values()), default=0)
    lines = [
        f"{options.model.name}: {options.threads} threads, medians of {repeats}, new prompts in each",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for program in programs:
        cells = [program.name, program.precision]
        if program.absent:
            lines.append(f"| {' | '.join(cells)} | absent: {program.absent} |" + " |" * (len(heads) - 3))
            continue
        for task in work:
            tokens = 1 if task.new > 1 else task.batch * task.length
            times = program.times.get(task.name, [])
            for clock in (0, 1):
                value = 1e3 * statistics.median(t[clock] for t in times) / tokens if times else float("nan")
                cells.append(f"{value:.1f}" if task.new > 1 else f"{value:.2f}")
        cells += [f"{program.given:,}", f"{program.prefilled:,}", program.agreement]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def make_environment(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(HERE / "peers.txt")]
    subprocess.run(command, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("environment")
    making.add_argument("folder", type=Path)
    running = commands.add_parser("run")
    running.add_argument("model", type=Path)
    running.add_argument("--python", default=sys.executable, help="of the peers (default: this one)")
    running.add_argument("--node-modules", type=Path, default="node_modules", help="that hold node-llama-cpp")
    running.add_argument("--files", type=Path, help="keep the converted files in this folder")
    running.add_argument("--programs", nargs="+", choices=list(TRIED), default=list(TRIED))
    running.add_argument("--work", nargs="+", choices=[w.name for w in WORK], default=[w.name for w in WORK])
    running.add_argument("--threads", type=int, default=os.cpu_count())
    running.add_argument("--repeats", type=int, default=2)
    running.add_argument("--minutes", type=float, default=14, help="no repeat is begun that would end later")
    running.add_argument("--seed", type=int, default=0, help="of the prompts")
    running.add_argument("--output", type=Path, help="the figures as JSON")
    options = parser.parse_args()
    if options.command == "environment":
        make_environment(options.folder)
        return 0
    if options.files is not None:
        options.files.mkdir(parents=True, exist_ok=True)
        return run(options, options.files.resolve())
    with tempfile.TemporaryDirectory() as folder:
        return run(options, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
