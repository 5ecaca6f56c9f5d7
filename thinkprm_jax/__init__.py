"""ThinkPRM in JAX: process reward models that think."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thinkprm_jax.checkpoint.huggingface import load_model
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.verifier.thinkprm import ThinkPRM

__version__ = "0.1.0"
__all__ = ["Sampler", "ThinkPRM", "__version__", "load_model"]

# Name -> module. Loaded at first use: JAX alone takes a second to import, and `--help` needs none of it.
_EXPORTS = {
    "Sampler": "thinkprm_jax.sampler",
    "ThinkPRM": "thinkprm_jax.verifier.thinkprm",
    "load_model": "thinkprm_jax.checkpoint.huggingface",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
