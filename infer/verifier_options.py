"""The verifier's settings on the command line, the same for every program that runs one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import UserError

if TYPE_CHECKING:
    from thinkprm_jax.verifier.registry import VerifierSpec
    from thinkprm_jax.verifier.thinkprm import ThinkPRM


def add_verifier_options(parser: argparse.ArgumentParser, slots: int = 16, kinds: bool = False) -> None:
    """slots: the default for --slots. kinds: of every kind, for :func:`choose_verifier`; otherwise of ThinkPRM."""
    add = parser.add_argument_group("verifier").add_argument
    add("--model", default="mini", help="mini (bundled), a Hugging Face folder or id (default: mini)")
    if kinds:
        add(
            "--verifier",
            "--prm-type",
            metavar="KIND",
            help="thinkprm, judge (an untuned model), disc_prm, math_shepherd, rlhflow or qwen_prm (default: what "
            "config.json or the name of the model says, else thinkprm)",
        )
        add("--judge-prompt", default="single", help="of a judge: single, index or steps (default: single)")
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
    from thinkprm_jax.runtime import enable_compilation_cache
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
    from thinkprm_jax.runtime import default_dtype

    if options.temperature is None:
        options.temperature = 0.0 if options.n == 1 else 0.6
    options.dtype = options.dtype or default_dtype()
    if Path(options.model).is_dir():
        options.model = str(Path(options.model).resolve())  # the same folder from wherever a run goes on


def verifier_settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that a verdict depends on, apart from the solution."""
    names = ("model", "n", "rounds", "temperature", "seed", "max_length", "max_gen_tokens", "decision_temperature")
    return {name: getattr(options, name) for name in (*names, "dtype")}


# Option -> the setting that it is; what a kind does not take must be as the parser left it.
_SETTINGS = {
    "n": "n",
    "rounds": "n_thinking_rounds",
    "temperature": "temperature",
    "seed": "seed",
    "max_length": "max_length",
    "max_gen_tokens": "max_gen_tokens",
    "decision_temperature": "decision_temperature",
    "judge_prompt": "judge_prompt",
    "slots": "slots",
    "dtype": "dtype",
}
_HARMLESS = ("seed", "slots")  # a program may use them for more than its verifier


def choose_verifier(options: argparse.Namespace) -> VerifierSpec:
    """The verifier that the options of :func:`add_verifier_options` with ``kinds`` describe.

    Raises:
      UserError: an option that this kind does not take was given, or a value cannot work.
    """
    from thinkprm_jax.runtime import enable_compilation_cache
    from thinkprm_jax.verifier.kind import resolve_kind
    from thinkprm_jax.verifier.registry import SETTINGS, describe_verifier

    enable_compilation_cache()
    kind = resolve_kind(options.verifier, options.model, default="thinkprm")
    if kind == "majority":
        raise UserError("--verifier majority gives no verdicts: it is for `thinkprm search`")
    defaults = argparse.ArgumentParser()
    add_verifier_options(defaults, kinds=True)
    given: dict[str, Any] = {}
    for option, setting in _SETTINGS.items():
        value = getattr(options, option)
        if setting in SETTINGS[kind]:
            given[setting] = value
        elif option not in _HARMLESS and value != defaults.get_default(option):
            raise UserError(
                f"--{option.replace('_', '-')} is no option of the verifier {kind}, which {options.model} is"
            )
    return describe_verifier(kind, options.model, **given)
