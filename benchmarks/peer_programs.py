"""The programs that benchmarks/peers.py compares, one a process: started by it, spoken to in lines of JSON.

    python benchmarks/peer_programs.py PROGRAM PRECISION FILES THREADS [POSITIONS]

FILES is a folder that peers.py has made: `hf` (a Hugging Face folder), and of a GGUF file `F32.gguf`,
`F16.gguf` and `Q8_0.gguf`. Each line read is {"prompts": [[ids]], "new": tokens}; the answer holds the greedy
tokens, the wall and CPU seconds (all cores), and how many prompt tokens went through the model. No program may
stop at an end token. Imports of the project stand in one class: the others run where it is not installed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Prompts = Sequence[Sequence[int]]
SLOTS = 16
CONTEXT = 1_536  # of one prompt
POSITIONS = 8_192  # of all together


class Absent(Exception):
    """This program cannot run here, and why."""


class Ours:
    """thinkprm_jax: its sampler on the Hugging Face folder."""

    def __init__(self, precision: str, files: Path, threads: int) -> None:
        from thinkprm_jax import Sampler, load_model
        from thinkprm_jax.runtime import enable_compilation_cache

        enable_compilation_cache()
        quantize = "int8" if precision == "int8" else None
        dtype = "bfloat16" if quantize else precision  # of activations, keys and values
        model, tokenizer = load_model(files / "hf", dtype=dtype, quantize=quantize)
        self.samplers = {
            # Without drafts, which the peers do not have either.
            slots: Sampler(model, tokenizer, slots=slots, max_length=CONTEXT, drafts=0)
            for slots in (1, SLOTS)
        }

    def warm(self, prompts: Prompts, new: int) -> None:
        self.run(prompts, new)  # compiles for these shapes

    def run(self, prompts: Prompts, new: int) -> tuple[list[list[int]], int]:
        from thinkprm_jax.sampler import Request, Think

        def script() -> Any:
            return (yield Think(new)).ids

        sampler = self.samplers[1 if len(prompts) == 1 else SLOTS]
        shared = sampler.stats.shared_tokens
        results = dict(sampler.run([Request(prompt, script) for prompt in prompts]))
        prefilled = sum(map(len, prompts)) - (sampler.stats.shared_tokens - shared)
        return [results[i].value for i in range(len(prompts))], prefilled


class Keeping:
    """A library that keeps nothing from call to call: every prompt token goes through the model."""

    def warm(self, prompts: Prompts, new: int) -> None:
        self.tokens([prompt[:64] for prompt in prompts], 2)

    def run(self, prompts: Prompts, new: int) -> tuple[list[list[int]], int]:
        return self.tokens(prompts, new), sum(map(len, prompts))

    def tokens(self, prompts: Prompts, new: int) -> list[list[int]]:
        raise NotImplementedError


class Transformers(Keeping):
    def __init__(self, precision: str, files: Path, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self.torch = torch
        dtype = getattr(torch, precision)
        self.model = AutoModelForCausalLM.from_pretrained(files / "hf", dtype=dtype).eval()
        self.model.generation_config.eos_token_id = None

    def tokens(self, prompts: Prompts, new: int) -> list[list[int]]:
        ids = self.torch.tensor(prompts)
        with self.torch.inference_mode():
            out = self.model.generate(
                ids,
                attention_mask=self.torch.ones_like(ids),
                max_new_tokens=new,
                do_sample=False,
                repetition_penalty=1.0,
                pad_token_id=0,
            )
        return out[:, ids.shape[1] :].tolist()


class CTranslate2(Keeping):
    def __init__(self, precision: str, files: Path, threads: int) -> None:
        import ctranslate2
        import tokenizers

        kind = {"int8": "int8_float32"}.get(precision, precision)
        if kind not in ctranslate2.get_supported_compute_types("cpu"):
            raise Absent(f"it has no {precision} on this processor")
        folder = files / "ctranslate2"
        if not folder.exists():
            ctranslate2.converters.TransformersConverter(str(files / "hf")).convert(str(folder))
        self.generator = ctranslate2.Generator(
            str(folder), device="cpu", compute_type=kind, inter_threads=1, intra_threads=threads
        )
        tokenizer = tokenizers.Tokenizer.from_file(str(files / "hf" / "tokenizer.json"))
        self.words = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]

    def tokens(self, prompts: Prompts, new: int) -> list[list[int]]:
        results = self.generator.generate_batch(
            [[self.words[i] for i in prompt] for prompt in prompts],
            max_length=new,
            min_length=new,
            sampling_topk=1,
            include_prompt_in_result=False,
            max_batch_size=0,
        )
        return [result.sequences_ids[0][:new] for result in results]


class OpenVINO(Keeping):
    """openvino-genai on the GGUF file, which it reads itself."""

    def __init__(self, precision: str, files: Path, threads: int) -> None:
        import numpy as np
        import openvino
        import openvino_genai

        self.np, self.openvino, self.genai = np, openvino, openvino_genai
        file, hint, cache = {
            "float32": ("F16", "f32", "f32"),  # it reads no float32; the values are the same
            "bfloat16": ("F16", "bf16", "bf16"),
            "int8": ("Q8_0", None, None),  # what it chooses itself: int8 weights, a cache of its own precision
        }[precision]
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        scheduler.cache_size = 1  # GB
        scheduler.max_num_batched_tokens = POSITIONS
        options = {"INFERENCE_NUM_THREADS": threads, "scheduler_config": scheduler}
        if hint:
            options |= {"INFERENCE_PRECISION_HINT": hint, "KV_CACHE_PRECISION": cache}
        self.pipe = openvino_genai.LLMPipeline(str(gguf_file(files, file)), "CPU", **options)

    def tokens(self, prompts: Prompts, new: int) -> list[list[int]]:
        config = self.genai.GenerationConfig()
        config.max_new_tokens = new
        config.ignore_eos, config.do_sample = True, False
        ids = self.np.array(prompts, self.np.int64)
        inputs = self.genai.TokenizedInputs(
            self.openvino.Tensor(ids), self.openvino.Tensor(self.np.ones_like(ids))
        )
        return [list(row)[-new:] for row in self.pipe.generate(inputs, config).tokens]


class LlamaCpp:
    """llama.cpp's server: `llama-server` from the PATH, or in this process that of the package xllamacpp."""

    def __init__(self, precision: str, files: Path, threads: int) -> None:
        file = gguf_file(files, {"float32": "F32", "float16": "F16", "int8": "Q8_0"}[precision])
        cache = "f32" if precision == "float32" else "f16"
        self.positions = int(sys.argv[5]) if len(sys.argv) > 5 else POSITIONS
        self.child: subprocess.Popen[bytes] | None = None
        program = shutil.which("llama-server")  # built for this processor, more likely than a wheel
        start = self._in_process if program is None else self._from_path
        self.url = start(file, cache, threads)
        self._wait()

    def _in_process(self, file: Path, cache: str, threads: int) -> str:
        try:
            import xllamacpp
        except ImportError:
            raise Absent("neither llama-server nor the package xllamacpp is installed") from None
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel, params.kv_unified = self.positions, SLOTS, True
        params.no_perf, params.verbosity = True, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        kinds = xllamacpp.ggml_type
        params.cache_type_k = params.cache_type_v = getattr(kinds, f"GGML_TYPE_{cache.upper()}")
        self.server = xllamacpp.Server(params)
        return self.server.listening_address

    def _from_path(self, file: Path, cache: str, threads: int) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = (
            f"-c {self.positions} -np {SLOTS} -kvu -t {threads} -tb {threads} -ctk {cache} -ctv {cache}".split()
        )
        command = ["llama-server", "-m", str(file), "--port", str(port), *options]
        self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return f"http://127.0.0.1:{port}"

    def _wait(self) -> None:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5)
                return
            except OSError:
                time.sleep(0.1)
        raise Absent("its server did not come up in a minute")

    def cpu_seconds(self) -> float:
        if self.child is None:
            return 0.0
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def warm(self, prompts: Prompts, new: int) -> None:
        self.run([prompt[:64] for prompt in prompts], 2)

    def run(self, prompts: Prompts, new: int) -> tuple[list[list[int]], int]:
        answers = complete(
            self.url,
            prompt=[list(prompt) for prompt in prompts],
            n_predict=new,
            temperature=0.0,
            top_k=1,
            ignore_eos=True,
            cache_prompt=False,
            return_tokens=True,
        )
        return [answer["tokens"] for answer in answers], sum(answer["timings"]["prompt_n"] for answer in answers)

    def close(self) -> None:
        if self.child is not None:
            self.child.terminate()


def complete(url: str, **body: Any) -> list[dict[str, Any]]:
    """The answers of the server's `/completion`, in the order of the prompts."""
    request = urllib.request.Request(
        f"{url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=900) as reply:
        answers = json.load(reply)
    answers = answers if isinstance(answers, list) else [answers]
    return sorted(answers, key=lambda answer: answer.get("index", 0))


def gguf_file(files: Path, kind: str) -> Path:
    path = files / f"{kind}.gguf"
    if not path.exists():
        raise Absent("it reads GGUF files, and the model was given as a folder")
    return path


PROGRAMS = {
    "thinkprm_jax": Ours,
    "transformers": Transformers,
    "ctranslate2": CTranslate2,
    "openvino-genai": OpenVINO,
    "llama.cpp": LlamaCpp,
}


def serve(name: str, precision: str, files: Path, threads: int) -> None:
    # What a library prints must not stand between the lines of the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        program = PROGRAMS[name](precision, files, threads)
    except (Absent, ImportError) as error:
        say(absent=str(error))
        return
    extra = getattr(program, "cpu_seconds", lambda: 0.0)
    say(ready=True, url=getattr(program, "url", ""))
    for line in sys.stdin:
        order = json.loads(line)
        if order.get("warm"):
            program.warm(order["prompts"], order["new"])
            say(warm=True)
            continue
        cpu, start = time.process_time() + extra(), time.perf_counter()
        tokens, prefilled = program.run(order["prompts"], order["new"])
        wall = time.perf_counter() - start
        say(tokens=tokens, prefilled=prefilled, wall=wall, cpu=time.process_time() + extra() - cpu)
    getattr(program, "close", lambda: None)()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
