"""The package's script of a chain, carried out by whatever generates: a part of benchmarks/verdicts.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Script = Generator[Any, Any, Any]


class Chain:
    """A script and the context that it has so far."""

    def __init__(self, prompt: Sequence[int], script: Script, seed: int) -> None:
        self.context, self.seed, self.sampled = list(prompt), seed, 0
        self.verdict: Any = None
        self._script = script
        self.phase = self._settle(next(script))

    def send(self, outcome: Any) -> None:
        try:
            self.phase = self._settle(self._script.send(outcome))
        except StopIteration as end:
            self.phase, self.verdict = None, end.value

    def _settle(self, phase: Any) -> Any:
        """Does what needs no model; the first phase that needs one."""
        from thinkprm_jax.sampler.request import Force, Mark, Rewind

        while True:
            if isinstance(phase, Force):
                self.context += phase.ids
                phase = self._script.send(None)
            elif isinstance(phase, Mark):
                phase = self._script.send(len(self.context))
            elif isinstance(phase, Rewind):
                del self.context[phase.mark :]
                phase = self._script.send(None)
            else:
                return phase

    def budget(self, max_length: int) -> int:
        return max(min(self.phase.max_tokens, max_length - self.phase.reserve - len(self.context)), 0)

    def think(self, ids: Sequence[int], watched: np.ndarray, tokenizer: Any) -> None:
        """Goes on with what a Think phase sampled: cut where it stops."""
        from thinkprm_jax.sampler.request import Thought
        from thinkprm_jax.verifier.script import encode_forced

        kept, stop, rest = list(ids), None, []
        for place, id in enumerate(ids):
            if id in self.phase.stop_ids:
                kept, stop = list(ids[:place]), id
                break
        self.sampled += len(kept) + (stop is not None)
        pieces = [tokenizer.token_bytes(id) for id in kept]
        text = b"".join(pieces).decode(errors="replace")
        found = [(text.find(stop_text), stop_text) for stop_text in self.phase.stop_texts if stop_text in text]
        if found:
            position, stop = min(found)
            count = 0
            while len(b"".join(pieces[: count + 1]).decode(errors="ignore")) <= position:
                count += 1
            whole = b"".join(pieces[:count]).decode(errors="ignore")
            rest, kept = list(encode_forced(tokenizer, text[len(whole) : position])), kept[:count]
            text = text[:position]
        width = watched.shape[1]
        watched = np.concatenate([watched[: len(kept)], np.full((len(rest), width), np.nan)])
        kept += rest
        self.context += kept
        finish = "length" if stop is None else "stop_id" if isinstance(stop, int) else "stop_text"
        self.send(Thought(kept, text, np.zeros(len(kept), np.float32), watched, finish, stop))


def prepared(options: argparse.Namespace, rows: list[dict[str, Any]]) -> tuple[Any, Iterator[list[Chain]]]:
    """(tokenizer, the n chains of every row), without any device of ours."""
    from thinkprm_jax.checkpoint.huggingface import read_model_config
    from thinkprm_jax.checkpoint.weights import find_model
    from thinkprm_jax.protocol.prompts import encode_prompt
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer
    from thinkprm_jax.verifier.script import VerificationScript, chain_seed
    from thinkprm_jax.verifier.thinkprm import ThinkPRMSettings

    folder = Path(options.files) / "hf"
    tokenizer = Tokenizer.load(folder)
    settings = ThinkPRMSettings(n=options.n, temperature=0.6, max_gen_tokens=options.max_gen_tokens)
    eos = read_model_config(find_model(folder)).eos_token_id
    ends = eos if isinstance(eos, tuple) else (eos,)
    ends = tuple(dict.fromkeys(id for id in (*ends, tokenizer.eos_id) if id is not None))
    script = VerificationScript(tokenizer, settings, max_length=options.max_length, end_ids=ends)

    def chains() -> Iterator[list[Chain]]:
        for row in rows:
            ids = encode_prompt(tokenizer, row["problem"], row["steps"])
            yield [Chain(ids, script(len(row["steps"])), chain_seed(0, i, ids)) for i in range(options.n)]

    return tokenizer, chains()


def write_row(out: Path, chains: list[Chain]) -> None:
    from thinkprm_jax.verifier.thinkprm import combine_chains

    found = combine_chains([chain.verdict for chain in chains])
    readable = sum(chain.verdict.reading.readable for chain in chains)
    row = {
        "prefix_score": found.prefix_score,
        "step_labels": found.step_labels,
        "tokens": sum(chain.sampled for chain in chains),
        "readable": readable,
    }
    with open(out, "a") as file:
        file.write(json.dumps(row) + "\n")
