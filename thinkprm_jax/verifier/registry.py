"""One interface for every verifier, and one loader.

    thinkprm        ThinkPRM: writes a chain, is made to decide
    judge           an untuned model that is asked for a verdict
    disc_prm        the paper's discriminative PRM, trained by this project or its authors
    math_shepherd   peiyi9979/math-shepherd-mistral-7b-prm
    rlhflow         RLHFlow/Llama3.1-8B-PRM-{Mistral,Deepseek}-Data
    qwen_prm        Qwen/Qwen2.5-Math-PRM-7B and its sisters
    majority        no verifier: answers are counted

A :class:`VerifierSpec` is a verifier that is described, checked and not yet loaded: programs write its ``stamp``
into their results and plan memory with it first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.protocol.judge_prompts import JUDGE_PROMPTS
from thinkprm_jax.verifier.kind import KINDS, STEPWISE_KINDS, read_kind, resolve_kind

if TYPE_CHECKING:
    from jax.sharding import Mesh

__all__ = ["KINDS", "SETTINGS", "AnyVerdict", "Memory", "Verifier", "VerifierSpec", "describe_verifier",
           "load_verifier"]  # fmt: skip


@runtime_checkable
class AnyVerdict(Protocol):
    """What all verdicts offer. The properties raise ``error`` where there is one.

    A verdict of a verifier that writes also has ``chains``.
    """

    @property
    def error(self) -> RequestError | None:
        """Why there is no verdict."""

    @property
    def prefix_score(self) -> float:
        """Probability that all given steps are correct."""

    @property
    def step_scores(self) -> list[float]:
        """One a step; of a verifier that does not judge steps the score of the whole alone."""

    @property
    def step_labels(self) -> list[int]:
        """1 correct, 0 incorrect, one a step; empty where the verifier does not judge steps."""

    @property
    def first_error(self) -> int:
        """Index from 0 of the first incorrect step, or -1."""

    @property
    def output_tokens(self) -> int:
        """Tokens sampled for its chains, those that cannot be read too; 0 where there are none."""

    def as_dict(self) -> dict[str, Any]: ...


@runtime_checkable
class Verifier(Protocol):
    """What all verifiers offer.

    kind: one of KINDS. n: verdicts (chains) a solution. settings: all that a verdict depends on, apart from the
    solution. judges_steps: whether a verdict says which step is wrong. sampled_tokens: so far, over all verdicts.
    """

    kind: str
    n: int
    settings: dict[str, Any]

    @property
    def judges_steps(self) -> bool: ...

    @property
    def sampled_tokens(self) -> int: ...

    def split(self, solution: str) -> list[str]:
        """The steps of a whole solution, as this kind's own code cuts it."""

    def verify(self, items: Iterable[tuple[str, Sequence[str]] | None]) -> Iterator[tuple[int, AnyVerdict]]:
        """(index of the item, verdict) as they finish, in any order; items: (problem, steps), or None: there
        is none at the moment. An item that cannot be judged has a verdict with ``error``; the others go on."""


@dataclass(frozen=True)
class Memory:
    """Bytes: parameters, and the cache once its longest row is full."""

    weights: int
    cache: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.cache


# Setting -> its default, by kind; None: settled when the others are known.
_SAMPLED: dict[str, Any] = {
    "n": 1,
    "temperature": None,
    "seed": 0,
    "max_length": 4096,
    "max_gen_tokens": None,
    "slots": 16,
    "dtype": None,
}
_THINKPRM = {**_SAMPLED, "n_thinking_rounds": 1, "decision_temperature": 1.0, "stop_at_unknown_step": False}
_JUDGE = {**_SAMPLED, "top_p": 1.0, "judge_prompt": JUDGE_PROMPTS[0], "force_decision": False}
_STEPWISE: dict[str, Any] = {"max_length": 4096, "batch_tokens": 8192, "dtype": None}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "thinkprm": _THINKPRM,
    "judge": _JUDGE,
    **dict.fromkeys(STEPWISE_KINDS, _STEPWISE),
    "majority": {},
}
# The names of the settings that a kind takes.
SETTINGS: Mapping[str, tuple[str, ...]] = {kind: tuple(settings) for kind, settings in _DEFAULTS.items()}
_SPEED_ONLY = ("slots", "batch_tokens")


@dataclass(frozen=True)
class VerifierSpec:
    """A verifier that is not loaded yet; :func:`describe_verifier` makes one.

    settings: all of SETTINGS[kind], settled.
    """

    kind: str
    path: str | None
    settings: Mapping[str, Any]

    @property
    def stamp(self) -> dict[str, Any]:
        """JSON of all that a verdict depends on, apart from the solution; ``settings`` of the loaded verifier."""
        if self.path is None:
            return {"kind": self.kind}
        kept = {name: value for name, value in self.settings.items() if name not in _SPEED_ONLY}
        if "n_thinking_rounds" in kept:
            kept["rounds"] = kept.pop("n_thinking_rounds")
        return {"kind": self.kind, "model": self.path, **kept}

    def memory(self, mesh: Mesh | None = None) -> Memory:
        """What it will take, with a mesh on each of its devices; nothing is loaded. Activations are not in it."""
        if self.path is None:
            return Memory(0)
        from thinkprm_jax.checkpoint.huggingface import read_config
        from thinkprm_jax.checkpoint.weights import find_model
        from thinkprm_jax.model.memory import cache_bytes, weight_bytes

        config, settings = read_config(find_model(self.path).config_folder), self.settings
        weights = weight_bytes(config, settings["dtype"], mesh)
        if self.kind in STEPWISE_KINDS:
            return Memory(weights)
        return Memory(
            weights, cache_bytes(config, settings["slots"], settings["max_length"], settings["dtype"], mesh)
        )

    def load(self, mesh: Mesh | None = None, like: Verifier | None = None) -> Verifier | None:
        """The verifier; None for ``majority``.

        Args:
          like: a loaded verifier that writes, of the same model, dtype and max_length: its sampler is used, with
            its slots, so that nothing is loaded or compiled again. Only one of the two may run at a time.
        Raises:
          UserError: the model cannot be loaded; ``like`` is of another model.
        """
        if self.path is None:
            return None
        if like is None:
            return _make(self.kind, self.path, {**self.settings, "mesh": mesh})
        if self.kind in STEPWISE_KINDS or not hasattr(like, "sampler"):
            raise UserError(f"a verifier of kind {self.kind} cannot share the sampler of one of kind {like.kind}")
        for name in ("model", "dtype", "max_length"):
            if self.stamp[name] != like.settings[name]:
                raise UserError(f"like: its {name} is {like.settings[name]}, not {self.stamp[name]}")
        arguments = {name: value for name, value in self.settings.items() if name not in ("slots", "dtype")}
        verifier = _make(self.kind, None, {**arguments, "sampler": like.sampler})
        verifier.settings = self.stamp
        return verifier


def describe_verifier(
    prm_type: str | None, path: str | Path | None = None, *, default: str | None = None, **settings: Any
) -> VerifierSpec:
    """Checks what can be checked without loading: the kind, the settings, config.json.

    Args:
      prm_type: one of KINDS, ``none``, the original's ``discriminative``, or None: as the path says.
      path: ``mini``, a folder or a Hugging Face id.
      default: the kind of a path that says nothing.
      settings: of SETTINGS[kind]. ``temperature`` None: 0 for one chain, else 0.6.
    Raises:
      UserError: one line that names what cannot work.
    """
    kind = resolve_kind(prm_type, path, default)
    known = _DEFAULTS[kind]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        has = f"it has: {', '.join(known)}" if known else "it has none"
        raise UserError(f"{unknown[0]} is no setting of the verifier {kind} ({has})")
    if kind == "majority":
        return VerifierSpec(kind, None, {})
    settled = {**known, **settings}
    if "n" in known:
        from thinkprm_jax.verifier.chains import Sampling

        if settled["temperature"] is None:
            settled["temperature"] = 0.0 if settled["n"] == 1 else 0.6
        Sampling(settled["n"], settled["temperature"], settled["seed"], settled.get("top_p", 1.0))
        if settled["n"] > 1 and settled["temperature"] == 0:
            raise UserError(f"n {settled['n']} needs a temperature above 0: greedy chains are all the same")
    if kind == "thinkprm":
        from thinkprm_jax.verifier.script import check_settings

        check_settings(settled["n_thinking_rounds"], settled["max_gen_tokens"], settled["decision_temperature"])
    if kind == "judge" and settled["judge_prompt"] not in JUDGE_PROMPTS:
        raise UserError(
            f"judge_prompt is {settled['judge_prompt']!r}, it must be one of {', '.join(JUDGE_PROMPTS)}"
        )
    if settled["dtype"] is None:
        from thinkprm_jax.runtime import default_dtype

        settled["dtype"] = default_dtype()
    # The same folder from wherever a run goes on.
    place = str(Path(path).resolve()) if Path(path).is_dir() else str(path)
    return VerifierSpec(kind, place, settled)


def load_verifier(
    prm_type: str | None, path: str | Path | None = None, *, mesh: Mesh | None = None, **settings: Any
) -> Verifier | None:
    """:func:`describe_verifier`, loaded. None for ``majority``."""
    return describe_verifier(prm_type, path, **settings).load(mesh)


def _make(kind: str, path: str | None, arguments: dict[str, Any]) -> Verifier:
    if kind == "thinkprm":
        from thinkprm_jax.verifier.thinkprm import ThinkPRM

        source = {} if path is None else {"model_name_or_path": path}
        return ThinkPRM(multiround_verifier=True, **source, **arguments)
    if kind == "judge":
        from thinkprm_jax.verifier.judge import LLMJudge

        return LLMJudge(path, **arguments)
    if kind == "disc_prm":
        from thinkprm_jax.data.discriminative import PUBLISHED
        from thinkprm_jax.verifier.discriminative import DiscriminativePRM

        # Those of the paper's authors say nothing of their layout.
        return DiscriminativePRM(path, layout=None if read_kind(path) else PUBLISHED, **arguments)
    from thinkprm_jax.verifier.published import MathShepherdPRM, QwenPRM, RLHFlowPRM

    published = (MathShepherdPRM, RLHFlowPRM, QwenPRM)
    return next(kind_class for kind_class in published if kind_class.kind == kind)(path, **arguments)
