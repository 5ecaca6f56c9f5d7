"""Settings of verifiers: one frozen dataclass a kind, one field a setting.

A field made by :func:`setting` is all there is of a setting. From it come the option of the command line, the key
of search recipes, its place in the stamp on every row, and its line in the documentation::

    @dataclass(frozen=True, kw_only=True)
    class GuessSettings(VerifierSettings):
        kind = "guess"
        needs_model = False
        answer: float = setting(0.5, "the score of every solution")

What many kinds share stands here: :class:`SamplingSettings` (how chains are drawn) and :class:`PlacementSettings`
(how the model runs).
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from thinkprm_jax.errors import UserError
from thinkprm_jax.sampler.request import check_drafts
from thinkprm_jax.seeds import check_seed

if TYPE_CHECKING:
    from thinkprm_jax.checkpoint.weights import ModelFiles

Dtype = Literal["float32", "bfloat16", "float16"]
Quantize = Literal["int8"]


@dataclass(frozen=True)
class SettingInfo:
    """What is known of a setting beside its type and its default.

    Attributes:
      help: one line for people; the default is added to it.
      option: of the command line; None: the field's name, "": there is none.
      recipe: key of a search recipe; None: ``prm_`` and the field's name, "": a search decides it by itself.
      stamped: it is part of the stamp: "always", "changed" (where it is not the default; texts), or "never", since
        it changes the speed alone.
      shared: the program may use the option for more than its verifier, so it is never refused.
    """

    help: str
    option: str | None = None
    recipe: str | None = None
    stamped: Literal["always", "changed", "never"] = "always"
    shared: bool = False


@dataclass(frozen=True)
class SettingField:
    """A setting of a kind, as it was declared.

    type: of a value. choices: of a Literal. optional: None is a value. default: of the field.
    """

    name: str
    type: type
    choices: tuple[str, ...]
    optional: bool
    default: Any
    info: SettingInfo

    def checked(self, value: Any) -> Any:
        """The value as the field's type has it: a number of numpy becomes Python's, a whole one a float where the
        field is one, a list of texts a tuple.

        Raises:
          UserError: it is of another type, or none of the choices.
        """
        if value is None and self.optional:
            return None
        if self.choices:
            if value in self.choices:
                return value
            raise UserError(f"{self.name} is {value!r}, it must be one of {', '.join(self.choices)}")
        found = _as_type(self.type, value)
        if found is None:
            raise UserError(f"{self.name} is {value!r}, it must be {_WANTED[self.type]}")
        return found

    @property
    def option(self) -> str:
        """Such as ``--max-length``; "" where there is none."""
        name = self.name if self.info.option is None else self.info.option
        return name and "--" + name.replace("_", "-")

    @property
    def recipe(self) -> str:
        return f"prm_{self.name}" if self.info.recipe is None else self.info.recipe


_WANTED: dict[type, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "True or False",
    str: "a text",
    tuple: "a list of texts",
}


def _as_type(kind: type, value: Any) -> Any:
    """None where it is no such value."""
    if isinstance(value, bool) or kind is bool:
        return value if kind is bool and isinstance(value, bool) else None
    if kind is int:
        return int(value) if isinstance(value, numbers.Integral) else None
    if kind is float:
        return float(value) if isinstance(value, numbers.Real) and math.isfinite(value) else None
    if kind is tuple:
        is_list = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
        return tuple(value) if is_list else None
    return value if isinstance(value, kind) else None


_KEY = "setting"


def setting(default: Any, help: str, **info: Any) -> Any:
    """A field of a settings class; ``info``: of :class:`SettingInfo`."""
    return dataclasses.field(default=default, metadata={_KEY: SettingInfo(help, **info)})


@dataclass(frozen=True, kw_only=True)
class VerifierSettings:
    """What all kinds have.

    Attributes:
      kind: name of the kind.
      needs_model: whether a verifier of this kind is a model. writes: whether it writes chains. judges: whether it
        gives verdicts at all.
      model: ``mini``, a Hugging Face folder or id.
      files: where the model was found, so that nobody looks for it twice; None: not looked for yet.
      fingerprints: of its files, once somebody asked for them
        (:func:`thinkprm_jax.verifier.loading.with_fingerprints`): a name can be given to another model.
    """

    kind: ClassVar[str]
    needs_model: ClassVar[bool] = True
    writes: ClassVar[bool] = False
    judges: ClassVar[bool] = True

    model: str | None = None
    files: ModelFiles | None = dataclasses.field(default=None, repr=False, compare=False)
    fingerprints: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Every value is of its field's type from here on; what further checks a kind has come behind this one."""
        for each in settings_of(type(self)).values():
            object.__setattr__(self, each.name, each.checked(getattr(self, each.name)))
        if self.model is not None and not isinstance(self.model, str):
            raise UserError(f"model is {self.model!r}, it must be a name, a folder or an id")

    @property
    def stamp(self) -> dict[str, Any]:
        """JSON of all that a verdict depends on, apart from the solution."""
        found: dict[str, Any] = {"kind": self.kind}
        if self.needs_model:
            found["model"] = self.model
        found |= self.fingerprints
        for each in settings_of(type(self)).values():
            value = getattr(self, each.name)
            if each.info.stamped == "always" or (each.info.stamped == "changed" and value != each.default):
                found[each.name] = list(value) if isinstance(value, tuple) else value
        return found

    def settled(self) -> Self:
        """The same with a value where the user left the choice to us."""
        return self

    def identified(self) -> Self:
        """Of a kind without a model here: the same with the fingerprints of what it stands for."""
        return self

    def changed(self, **values: Any) -> Self:
        """The same with other values, checked and settled; what was settled before is settled anew.

        Raises:
          UserError: a setting that this kind does not have, or a value that cannot work.
        """
        check_names(type(self), values)
        return dataclasses.replace(self, **values).settled()


@dataclass(frozen=True, kw_only=True)
class PlacementSettings(VerifierSettings):
    """How the model runs."""

    max_length: int = setting(
        4096, "longest context in tokens, prompt and chain", recipe="max_verification_length"
    )
    dtype: Dtype | None = setting(None, "of the weights (default: float32 on CPUs, else bfloat16)", recipe="")
    quantize: Quantize | None = setting(
        None, "int8: weights in eight bits (default: none)", recipe="", stamped="changed"
    )

    def settled(self) -> Self:
        if self.dtype is not None:
            return super().settled()
        from thinkprm_jax.runtime import default_dtype

        return dataclasses.replace(super().settled(), dtype=default_dtype())


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(PlacementSettings):
    """How chains are drawn. With the prompt and the number of the chain, ``seed`` decides the chain."""

    writes: ClassVar[bool] = True

    n: int = setting(1, "chains a solution; scores are averaged")
    temperature: float | None = setting(None, "of the chains (default: 0, greedy, for one chain; else 0.6)")
    top_p: float = setting(1.0, "of sampling: the likeliest tokens that have this probability together")
    seed: int = setting(0, "of sampling", shared=True)
    max_gen_tokens: int | None = setting(
        None, "tokens a round may think (default: what fits)", recipe="max_verification_tokens"
    )
    slots: int = setting(16, "chains decoded together, at most", stamped="never", shared=True)
    drafts: int | None = setting(
        None,
        "tokens a step tries that were written before, at most; 0: none (default: what pays)",
        stamped="never",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            check_seed(self.seed)
        except ValueError as error:
            raise UserError(str(error)) from None
        check_drafts(self.drafts)
        if self.n < 1:
            raise UserError(f"n is {self.n}, it must be at least 1")
        if self.n > 1 and self.temperature == 0:
            raise UserError(f"n {self.n} needs a temperature above 0: greedy chains are all the same")
        if self.temperature is not None and self.temperature < 0:
            raise UserError(f"temperature is {self.temperature}, it must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}, it must lie in (0, 1]")
        if self.max_gen_tokens is not None and self.max_gen_tokens < 1:
            raise UserError(f"max_gen_tokens is {self.max_gen_tokens}, it must be at least 1")

    def settled(self) -> Self:
        """Greedy for one chain; several greedy chains would be one and the same."""
        found = super().settled()
        if found.temperature is not None:
            return found
        return dataclasses.replace(found, temperature=0.0 if found.n == 1 else 0.6)


def settings_of(cls: type[VerifierSettings]) -> dict[str, SettingField]:
    """The settings of a kind by name, in the order of their declaration."""
    if cls not in _SETTINGS:
        hints = typing.get_type_hints(cls, localns={"ModelFiles": object})
        _SETTINGS[cls] = {
            field.name: _setting(field, hints[field.name])
            for field in dataclasses.fields(cls)
            if _KEY in field.metadata
        }
    return _SETTINGS[cls]


_SETTINGS: dict[type[VerifierSettings], dict[str, SettingField]] = {}


def _setting(field: dataclasses.Field[Any], annotation: Any) -> SettingField:
    """From an annotation such as ``int | None`` or ``Literal["a", "b"]``."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    parts = typing.get_args(annotation) if is_union else (annotation,)
    optional = type(None) in parts
    [found] = [part for part in parts if part is not type(None)]
    choices = typing.get_args(found) if typing.get_origin(found) is Literal else ()
    kind = str if choices else typing.get_origin(found) or found
    return SettingField(field.name, kind, choices, optional, field.default, field.metadata[_KEY])


def signature_with_settings(init: Callable[..., None], cls: type[VerifierSettings]) -> inspect.Signature:
    """The signature of a class whose ``__init__`` takes the settings ``cls`` as ``**values``: with their names,
    types and defaults in the place of that."""
    _, *others = inspect.signature(init).parameters.values()
    kept = [each for each in others if each.kind is not inspect.Parameter.VAR_KEYWORD]
    named = {each.name for each in kept}
    values = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in dataclasses.fields(cls)
        if _KEY in field.metadata and field.name not in named
    ]
    return inspect.Signature([*kept, *(values if len(kept) < len(others) else ())])


def settings_table(cls: type[VerifierSettings]) -> str:
    """The documentation of a kind's settings, a Markdown table."""
    rows = ["| setting | default | option | recipe | what it is |", "|---|---|---|---|---|"]
    for each in settings_of(cls).values():
        default = "" if each.default is None else f"`{each.default!r}`"
        # Texts of the protocol.
        if len(default) > 40 or (
            each.info.stamped == "changed" and each.type in (str, tuple) and not each.choices
        ):
            default = "as in [the protocol](protocol.md)" if each.default else "nothing"
        option, recipe = (f"`{name}`" if name else "" for name in (each.option, each.recipe))
        rows.append(f"| `{each.name}` | {default} | {option} | {recipe} | {each.info.help} |")
    return "\n".join(rows) + "\n"


def check_names(cls: type[VerifierSettings], values: Mapping[str, Any]) -> None:
    """UserError that names a setting that this kind does not have."""
    known = settings_of(cls)
    unknown = sorted(set(values) - set(known))
    if unknown:
        has = f"it has: {', '.join(known)}" if known else "it has none"
        raise UserError(f"{unknown[0]} is no setting of the verifier {cls.kind} ({has})")
