"""The verifier's settings on the command line, the same for every program that runs one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import UserError

if TYPE_CHECKING:
    from thinkprm_jax.verifier.discriminative import DiscriminativePRM
    from thinkprm_jax.verifier.thinkprm import ThinkPRM


def add_verifier_options(parser: argparse.ArgumentParser, slots: int = 16) -> None:
    """slots: the default for --slots."""
    add = parser.add_argument_group("verifier").add_argument
    add("--model", default="mini", help="mini (bundled), a Hugging Face folder or id (default: mini)")
    add("--n", type=int, default=1, help="chains a solution; scores are averaged (default: 1)")
    add("--rounds", type=int, default=1, help="thinking rounds a chain (default: 1)")
    add("--temperature", type=float, help="of the chains (default: 0, greedy, for one chain; else 0.6)")
    add("--seed", type=int, default=0, help="of sampling (default: 0)")
    add("--max-length", type=int, default=4096, help="longest context, prompt and chain (default: 4096 tokens)")
    add("--max-gen-tokens", type=int, help="tokens a round may think (default: what fits)")
    add("--decision-temperature", type=float, default=1.0, help="of the final Yes against No (default: 1)")
    add("--slots", type=int, default=slots, help=f"chains decoded together (default: {slots})")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: float32 on CPUs, else bfloat16")


def load_verifier(options: argparse.Namespace) -> ThinkPRM:
    """The verifier; defaults that depend on others are settled in ``options``, for :func:`verifier_settings`."""
    from thinkprm_jax.compilation import enable_compilation_cache
    from thinkprm_jax.verifier.thinkprm import ThinkPRM

    enable_compilation_cache()
    settle(options)
    return ThinkPRM(
        options.model,
        max_length=options.max_length,
        temperature=options.temperature,
        n=options.n,
        seed=options.seed,
        n_thinking_rounds=options.rounds,
        multiround_verifier=True,
        decision_temperature=options.decision_temperature,
        max_gen_tokens=options.max_gen_tokens,
        slots=options.slots,
        dtype=options.dtype,
    )


def settle(options: argparse.Namespace) -> None:
    """Puts a value where the user left the choice to us."""
    from thinkprm_jax.verifier.thinkprm import default_dtype

    if options.temperature is None:
        options.temperature = 0.0 if options.n == 1 else 0.6
    options.dtype = options.dtype or default_dtype()
    if Path(options.model).is_dir():
        options.model = str(Path(options.model).resolve())  # the same folder from wherever a run goes on


def verifier_settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that a verdict depends on, apart from the solution."""
    names = ("model", "n", "rounds", "temperature", "seed", "max_length", "max_gen_tokens", "decision_temperature")
    return {name: getattr(options, name) for name in (*names, "dtype")}


# Options of verifiers that write chains, and what they are where the user says nothing.
_OF_CHAINS = {"n": 1, "rounds": 1, "temperature": None, "max_gen_tokens": None, "decision_temperature": 1.0}


def settle_discriminative(options: argparse.Namespace) -> None:
    """:func:`settle` for a verifier that writes no chains.

    Raises:
      UserError: an option that is for chains was given.
    """
    for name, default in _OF_CHAINS.items():
        if getattr(options, name) != default:
            raise UserError(
                f"--{name.replace('_', '-')} is of chains; {options.model} is discriminative, it writes none"
            )
    settle(options)


def load_discriminative(options: argparse.Namespace) -> DiscriminativePRM:
    from thinkprm_jax.compilation import enable_compilation_cache
    from thinkprm_jax.verifier.discriminative import DiscriminativePRM

    enable_compilation_cache()
    return DiscriminativePRM(options.model, max_length=options.max_length, dtype=options.dtype)


def discriminative_settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that its verdict depends on, apart from the solution."""
    return {
        "model": options.model,
        "task": "discriminative",
        "max_length": options.max_length,
        "dtype": options.dtype,
    }
