"""A verifier inside somebody else's jit: pure functions of arrays, without a host beside them."""

from thinkprm_jax.functional.chains import TokenVerdicts, verify_tokens
from thinkprm_jax.functional.encode import TokenPrompts, token_chains, token_prompts
from thinkprm_jax.functional.params import VerifierParams, verifier_params
from thinkprm_jax.functional.scores import TokenScores, VerdictSpans, score_tokens

__all__ = [
    "TokenPrompts",
    "TokenScores",
    "TokenVerdicts",
    "VerdictSpans",
    "VerifierParams",
    "score_tokens",
    "token_chains",
    "token_prompts",
    "verifier_params",
    "verify_tokens",
]
