"""The parts of benchmarks/device.py that need transformers and torch: parity with it, and its own speed."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from device_common import Figures, Trial, load_mini_tokenizer, random_model, shape_config


def parity(trial: Trial) -> None:
    import jax.numpy as jnp

    from thinkprm_jax.checkpoint.huggingface import load_model, save_model
    from thinkprm_jax.sampler import Sampler

    figures = Figures(trial.out, "parity")
    rng = np.random.default_rng(0)
    config = shape_config(trial.shape)
    prompts = rng.integers(1, min(config.vocab_size, 2_000), (4, 64))
    new_tokens = 8 if trial.tiny else 32
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(config, "bfloat16")
        save_model(model, load_mini_tokenizer(), Path(folder))
        half = np.asarray(model(jnp.asarray(prompts)))
        del model
        gc.collect()
        model, tokenizer = load_model(Path(folder), dtype="float32")
        full = np.asarray(model(jnp.asarray(prompts)))
        sampler = Sampler(model, tokenizer, slots=len(prompts), max_length=128, drafts=0)
        found = sampler.generate(prompts.tolist(), max_new_tokens=new_tokens)
        ours = [completion.ids for [completion] in found]
        del sampler, model
        gc.collect()
        spread = float(full.std())
        figures.add("logits, standard deviation", spread)
        figures.add("bfloat16 against float32, ours: mean difference", float(np.abs(half - full).mean()))
        try:
            import torch
            from transformers import AutoModelForCausalLM
        except ImportError as error:
            figures.add("transformers", f"absent ({error})", note="not compared")
            return
        place = "cuda" if torch.cuda.is_available() else "cpu"
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(place)
        ids = torch.tensor(prompts, device=place)
        with torch.inference_mode():
            expected = theirs(ids).logits.float().cpu().numpy()
            greedy = greedy_tokens(theirs, ids, new_tokens)
            theirs = theirs.to(torch.bfloat16)
            their_half = theirs(ids).logits.float().cpu().numpy()
    ours_bf16, theirs_bf16 = (np.abs(x - expected) for x in (half, their_half))
    figures.add("float32 against float32: largest difference", float(np.abs(full - expected).max()))
    figures.add("bfloat16 against their float32: mean difference, ours", float(ours_bf16.mean()))
    figures.add("the same, theirs", float(theirs_bf16.mean()), goal="ours no larger")
    same = [equal_beginning(a, b) for a, b in zip(ours, greedy, strict=True)]
    figures.add("greedy float32 tokens in common from the first on", f"{same} of {new_tokens}", goal="all")


def equal_beginning(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def greedy_tokens(model: Any, ids: Any, new_tokens: int) -> list[list[int]]:
    import torch

    with torch.inference_mode():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return out[:, ids.shape[1] :].tolist()


def peer(trial: Trial) -> None:
    figures = Figures(trial.out, "peer")
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError as error:
        figures.add("transformers", f"absent ({error})")
        return
    place = "cuda" if torch.cuda.is_available() else "cpu"
    config = AutoConfig.for_model(**shape_config(trial.shape).to_hf())
    with torch.device(place):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    name = torch.cuda.get_device_name() if place == "cuda" else "a CPU"
    figures.add("transformers", f"generate in bfloat16 on {name}")
    few, many = 1, 9 if trial.tiny else 33
    for batch in trial.batches:
        times: dict[int, list[float]] = {few: [], many: []}
        for _ in range(3):
            for new_tokens, seconds in times.items():
                ids = torch.randint(1, 1_000, (batch, trial.context), device=place)
                start = time.perf_counter()
                greedy_tokens(model, ids, new_tokens)  # it brings the tokens to the host
                seconds.append(time.perf_counter() - start)
        short, long = (statistics.median(values[1:]) for values in times.values())
        figures.add(f"batch {batch}: decode", batch * (many - few) / (long - short), "tokens/s")
        figures.add(f"batch {batch}: prefill", batch * trial.context / short, "tokens/s")
