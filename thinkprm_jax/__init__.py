"""ThinkPRM in JAX: process reward models that think.

Every public name is here and is loaded when it is first used; the modules below are private::

    from thinkprm_jax import ThinkPRM

    prm = ThinkPRM("mini")
    prm.predict_correctness_batch(["2 + 3 + 4?"], [["2 + 3 = 5.", "5 + 4 = 9."]])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thinkprm_jax.checkpoint.huggingface import load_model, save_model
    from thinkprm_jax.distributed.mesh import make_mesh
    from thinkprm_jax.distributed.sharing import share_mesh
    from thinkprm_jax.errors import RequestError, UserError
    from thinkprm_jax.fleet.batch import ScoreBatch
    from thinkprm_jax.functional import (
        VerifierParams,
        score_tokens,
        token_chains,
        token_prompts,
        verifier_params,
        verify_tokens,
    )
    from thinkprm_jax.grading.compare import answers_equal
    from thinkprm_jax.grading.extract import extract_answer
    from thinkprm_jax.protocol.steps import split_solution
    from thinkprm_jax.recipe import load_recipe
    from thinkprm_jax.records import read_verdicts
    from thinkprm_jax.rewards.reward import Reward
    from thinkprm_jax.sampler import Choose, Completion, Force, Mark, Request, Rewind, Sampler, Think
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer
    from thinkprm_jax.verifier.base import Verdict, Verifier
    from thinkprm_jax.verifier.beside import plan_slots
    from thinkprm_jax.verifier.client import AsyncClient, Client
    from thinkprm_jax.verifier.discriminative import DiscriminativePRM
    from thinkprm_jax.verifier.judge import LLMJudge
    from thinkprm_jax.verifier.published import MathShepherdPRM, QwenPRM, RLHFlowPRM, SkyworkPRM
    from thinkprm_jax.verifier.registry import load_verifier, verifier_settings
    from thinkprm_jax.verifier.thinkprm import ThinkPRM

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "Choose",
    "Client",
    "Completion",
    "DiscriminativePRM",
    "Force",
    "LLMJudge",
    "Mark",
    "MathShepherdPRM",
    "QwenPRM",
    "RLHFlowPRM",
    "Request",
    "RequestError",
    "Reward",
    "Rewind",
    "Sampler",
    "ScoreBatch",
    "SkyworkPRM",
    "Think",
    "ThinkPRM",
    "Tokenizer",
    "UserError",
    "Verdict",
    "Verifier",
    "VerifierParams",
    "__version__",
    "answers_equal",
    "extract_answer",
    "load_model",
    "load_recipe",
    "load_verifier",
    "make_mesh",
    "plan_slots",
    "read_verdicts",
    "save_model",
    "score_tokens",
    "share_mesh",
    "split_solution",
    "token_chains",
    "token_prompts",
    "verifier_params",
    "verifier_settings",
    "verify_tokens",
]

# Name -> module. Loaded at first use: JAX alone takes a second to import, and `--help` needs none of it.
_EXPORTS = {
    "AsyncClient": "verifier.client",
    "Choose": "sampler",
    "Client": "verifier.client",
    "Completion": "sampler",
    "DiscriminativePRM": "verifier.discriminative",
    "Force": "sampler",
    "LLMJudge": "verifier.judge",
    "Mark": "sampler",
    "MathShepherdPRM": "verifier.published",
    "QwenPRM": "verifier.published",
    "RLHFlowPRM": "verifier.published",
    "Request": "sampler",
    "RequestError": "errors",
    "Reward": "rewards.reward",
    "Rewind": "sampler",
    "Sampler": "sampler",
    "ScoreBatch": "fleet.batch",
    "SkyworkPRM": "verifier.published",
    "Think": "sampler",
    "ThinkPRM": "verifier.thinkprm",
    "Tokenizer": "tokenizer.tokenizer",
    "UserError": "errors",
    "Verdict": "verifier.base",
    "Verifier": "verifier.base",
    "VerifierParams": "functional",
    "answers_equal": "grading.compare",
    "extract_answer": "grading.extract",
    "load_model": "checkpoint.huggingface",
    "load_recipe": "recipe",
    "load_verifier": "verifier.registry",
    "make_mesh": "distributed.mesh",
    "plan_slots": "verifier.beside",
    "read_verdicts": "records",
    "save_model": "checkpoint.huggingface",
    "score_tokens": "functional",
    "share_mesh": "distributed.sharing",
    "split_solution": "protocol.steps",
    "token_chains": "functional",
    "token_prompts": "functional",
    "verifier_params": "functional",
    "verifier_settings": "verifier.registry",
    "verify_tokens": "functional",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
