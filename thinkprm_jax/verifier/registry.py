"""Every kind of verifier, how a model is recognised as one, and the one door to all of them.

    thinkprm        ThinkPRM: writes a chain, is made to decide
    judge           an untuned model that is asked for a verdict
    disc_prm        the paper's discriminative PRM, trained by this project or its authors
    math_shepherd   peiyi9979/math-shepherd-mistral-7b-prm
    rlhflow         RLHFlow/Llama3.1-8B-PRM-{Mistral,Deepseek}-Data
    qwen_prm        Qwen/Qwen2.5-Math-PRM-7B and its sisters
    skywork_prm     Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B
    server          a `thinkprm serve` somewhere else, whatever it serves
    majority        no verifier: answers are counted

A new kind is a file with its settings and its class, and one line here (or a call of :func:`register`)::

    verifier = load_verifier("launch/ThinkPRM-1.5B", n=4)             # by name
    settings = verifier_settings("Qwen/Qwen2.5-Math-PRM-7B")          # described and checked, not yet loaded
    verifier = load_verifier(settings)
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from thinkprm_jax.data.discriminative import TASK as DISCRIMINATIVE
from thinkprm_jax.errors import UserError
from thinkprm_jax.verifier.folder import GENERATIVE, read_architectures, read_kind
from thinkprm_jax.verifier.settings import SettingField, VerifierSettings, settings_of

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.checkpoint.weights import ModelFiles
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.verifier.base import Verifier


@dataclass(frozen=True)
class Registration:
    """How a kind is called, where its class is, and how its models are recognised.

    Attributes:
      place: "module:class", imported when it is used; "": there is none. The class has ``Settings`` and ``load``.
      names: of an id or a folder's name in lower case, a pattern that only models of this kind fit.
      architectures: of config.json, that only models of this kind have.
      task: of config.json, under our own key.
      exclusive: its models are of no use to another kind, nor other models to it.
    """

    kind: str
    place: str
    names: str = ""
    architectures: tuple[str, ...] = ()
    task: str = ""
    exclusive: bool = False

    def load_class(self) -> Any:
        """The class."""
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(module), name)


_HERE = "thinkprm_jax.verifier"
_REGISTRY: dict[str, Registration] = {}


# Options of the programs that run a verifier, beside those of its settings.
PROGRAM_OPTIONS = frozenset(
    ("model", "verifier", "prm-type", "help", "input", "output", "quiet", "task", "split", "problems", "data")
) | frozenset(("subset", "limit", "balanced", "file", "sweep", "output-dir", "details", "plots", "mesh"))
PROGRAM_OPTIONS |= frozenset(
    ("start", "end", "shard", "format", "parts", "process", "processes", "lease", "no-wait")
)
PROGRAM_OPTIONS |= frozenset(
    ("engine", "address", "replicas", "replica-cpus", "replica-gpus", "replica-resources")
)


def register(registration: Registration) -> None:
    """Adds a kind; every program takes it by its name from then on. To be called behind the class.

    Raises:
      UserError: the kind is there already, its class cannot be loaded, or a setting is called as a program's own
        option or as another setting that is something else.
    """
    if registration.kind in _REGISTRY:
        raise UserError(f"there is a verifier {registration.kind} already")
    try:
        cls = registration.load_class().Settings
    except (ImportError, AttributeError) as error:
        raise UserError(f"the verifier {registration.kind} cannot be loaded: {error}") from None
    known = all_settings()
    for field in settings_of(cls).values():
        _check_name(registration.kind, field, known)
    _REGISTRY[registration.kind] = registration


def _check_name(kind: str, field: SettingField, known: Mapping[str, tuple[SettingField, tuple[str, ...]]]) -> None:
    """A setting of a new kind beside those of all others, of which programs make one option and one recipe key."""
    name = f"the setting {field.name} of the verifier {kind}"
    option = field.option.removeprefix("--")
    if field.name.replace("_", "-") in PROGRAM_OPTIONS or option in PROGRAM_OPTIONS:
        taken = option if option in PROGRAM_OPTIONS else field.name
        raise UserError(f"{name}: programs have an option {taken} of their own; give it another name")
    for other, takers in known.values():
        if other.name == field.name:
            if (other.type, other.choices, other.optional) != (field.type, field.choices, field.optional):
                raise UserError(f"{name} is another thing than that of {takers[0]}; give it another name")
        elif field.option and field.option == other.option:
            raise UserError(f"{name}: {field.option} is the option of {other.name} of {takers[0]}")
        elif field.recipe and field.recipe == other.recipe:
            raise UserError(f"{name}: {field.recipe} is the recipe key of {other.name} of {takers[0]}")


for _registration in (
    # Names: of the original's recipes, and their sisters; the first that fits counts.
    Registration("thinkprm", f"{_HERE}.thinkprm:ThinkPRM", r"(\A|/)mini\Z|thinkprm", task=GENERATIVE),
    Registration("judge", f"{_HERE}.judge:LLMJudge"),
    Registration(
        "disc_prm",
        f"{_HERE}.discriminative:DiscriminativePRM",
        r"discriminative-prm800k",
        task=DISCRIMINATIVE,
        exclusive=True,
    ),
    Registration("math_shepherd", f"{_HERE}.published:MathShepherdPRM", r"math-shepherd.*prm", exclusive=True),
    Registration(
        "rlhflow", f"{_HERE}.published:RLHFlowPRM", r"llama3\.1-8b-prm-(mistral|deepseek)-data", exclusive=True
    ),
    Registration(
        "qwen_prm",
        f"{_HERE}.published:QwenPRM",
        r"qwen2\.5-math-(prm-\d+b|7b-prm800k)",
        ("Qwen2ForProcessRewardModel",),
        exclusive=True,
    ),
    Registration(
        "skywork_prm",
        f"{_HERE}.published:SkyworkPRM",
        r"skywork-o1-open-prm",
        ("Qwen2ForPrmModel",),
        exclusive=True,
    ),
    Registration("server", f"{_HERE}.client:Client"),
    Registration("majority", ""),
):
    _REGISTRY[_registration.kind] = _registration

# Names of the original's recipes. "discriminative" is whichever exclusive kind the path is of.
ALIASES = {"none": "majority"}
ANY_DISCRIMINATIVE = "discriminative"


@dataclass(frozen=True, kw_only=True)
class MajoritySettings(VerifierSettings):
    """No verifier: answers are counted."""

    kind: ClassVar[str] = "majority"
    needs_model: ClassVar[bool] = False
    judges: ClassVar[bool] = False


def kinds() -> tuple[str, ...]:
    """The names of all kinds."""
    return tuple(_REGISTRY)


def settings_class(kind: str) -> type[VerifierSettings]:
    """The settings of a kind.

    Raises:
      UserError: there is no such kind.
    """
    if kind not in _REGISTRY:
        raise UserError(f"there is no verifier {kind!r} (we have: {', '.join((*_REGISTRY, *ALIASES))})")
    found = _REGISTRY[kind]
    return found.load_class().Settings if found.place else MajoritySettings


def verifier_class(kind: str) -> type[Verifier]:
    """The class of a kind of verifiers; errors as of :func:`settings_class`."""
    settings_class(kind)
    found: type[Verifier] = _REGISTRY[kind].load_class()
    return found


def judges(kind: str | None) -> bool:
    """Whether there are verdicts: of a kind, one of its other names, or None, whatever the model is.

    Raises:
      UserError: there is no such kind.
    """
    if kind is None or kind == ANY_DISCRIMINATIVE:
        return True
    return settings_class(ALIASES.get(kind, kind)).judges


def all_settings() -> dict[str, tuple[SettingField, tuple[str, ...]]]:
    """Every setting of every kind: its field, and the kinds that have it."""
    found: dict[str, tuple[SettingField, tuple[str, ...]]] = {}
    for kind in kinds():
        for name, field in settings_of(settings_class(kind)).items():
            first, takers = found.get(name, (field, ()))
            found[name] = first, (*takers, kind)
    return found


def verifier_settings(
    model: str | Path | None = None, *, kind: str | None = None, default: str | None = None, **values: Any
) -> VerifierSettings:
    """The settings of a verifier, checked as far as that goes without loading it: kind, values, config.json.

    Example:

        settings = verifier_settings("mini", n=4)
        settings.temperature, settings.stamp  # 0.6, and all that a verdict depends on

    Args:
      model: ``mini``, a folder or a Hugging Face id.
      kind: one of :func:`kinds`, ``none``, the original's ``discriminative``, or None: as the model says.
      default: the kind of a model that says nothing.
      values: of the kind's settings; what is left out has its default. The result says what every default came to.
    Raises:
      UserError: one line that names what cannot work.
    """
    return default_settings(model, kind=kind, default=default).changed(**values)


def default_settings(
    model: str | Path | None = None, *, kind: str | None = None, default: str | None = None
) -> VerifierSettings:
    """The settings of a verifier before anything is chosen; ``changed`` chooses. For a program that must know the
    kind to know which values it takes. Arguments and errors are those of :func:`verifier_settings`."""
    found, files = resolve_kind(kind, model, default)
    cls = settings_class(found)
    if not cls.needs_model:
        return cls()
    assert model is not None
    # The same folder or file from wherever a run goes on.
    place = str(Path(model).resolve()) if Path(model).exists() else str(model)
    return cls(model=place, files=files)


def load_verifier(
    settings: VerifierSettings | str | Path | None = None,
    *,
    kind: str | None = None,
    mesh: Mesh | None = None,
    like: Verifier | None = None,
    sampler: Sampler | None = None,
    **values: Any,
) -> Verifier:
    """A verifier of any kind, loaded.

    Example:

        prm = load_verifier("mini", n=4)
        [(index, verdict)] = prm.verify([("2 + 2?", ["2 + 2 = 4."])])

    Args:
      settings: of :func:`verifier_settings`; or its ``model``, and then ``kind`` and ``values`` are its others.
        None: of a ``kind`` that needs no model.
      mesh: devices to run on.
      like: a loaded verifier that writes, of the same model, dtype and max_length: its sampler is used, with its
        slots, so that nothing is loaded or compiled again.
      sampler: around the very model of the settings; of a kind that writes.
    Raises:
      UserError: the settings cannot work, the model cannot be loaded, or ``like`` is of another model.
    """
    if not isinstance(settings, VerifierSettings):
        settings = verifier_settings(settings, kind=kind, **values)
    if not settings.judges:
        raise UserError(f"{settings.kind} is no verifier: it judges no solution")
    if like is not None:
        _check_alike(settings, like)
        sampler = like.sampler
    return _REGISTRY[settings.kind].load_class().load(settings, mesh=mesh, sampler=sampler)


_SHARED = ("model", "dtype", "quantize", "max_length")  # what verifiers on one sampler have in common


def is_alike(settings: VerifierSettings, loaded: Verifier) -> bool:
    """Whether the sampler of a loaded verifier serves these settings too."""
    ours, theirs = settings.stamp, loaded.settings.stamp
    shared = settings.writes and loaded.sampler is not None
    return shared and all(ours.get(name) == theirs.get(name) for name in _SHARED)  # a stamp leaves defaults out


def _check_alike(settings: VerifierSettings, like: Verifier) -> None:
    if not settings.writes or like.sampler is None:
        raise UserError(f"a verifier of kind {settings.kind} cannot share the sampler of one of kind {like.kind}")
    ours, theirs = settings.stamp, like.settings.stamp
    for name in _SHARED:
        if ours.get(name) != theirs.get(name):
            raise UserError(f"like: its {name} is {theirs.get(name)}, not {ours.get(name)}")


def current_stamp(written: Mapping[str, Any]) -> dict[str, Any]:
    """The stamp of a row as it is written today, whatever wrote it. Rows of `thinkprm score` had no kind, since
    all were ThinkPRM's; a setting that came later had the value that is its default now."""
    kind = written.get("kind", "thinkprm")
    if kind not in _REGISTRY:
        return dict(written)
    return {**settings_class(kind)().stamp, **written, "kind": kind}


def resolve_kind(
    kind: str | None, model: str | Path | None, default: str | None = None
) -> tuple[str, ModelFiles | None]:
    """(the kind that a recipe or a command line means, where the model is, if it had to be looked for).

    Args:
      kind: one of :func:`kinds`, ``none``, the original's ``discriminative``, or None: as the model says.
      default: of a model that says nothing.
    Raises:
      UserError: there is no such kind, or it is not the model's.
    """
    wanted = ALIASES.get(kind, kind) if kind is not None else None
    if wanted is not None and wanted != ANY_DISCRIMINATIVE and not settings_class(wanted).needs_model:
        if model is not None:
            raise UserError(f"a verifier of kind {wanted} is no model, and {model} is given: leave it out")
        return wanted, None
    if model is None:
        raise UserError(f"a verifier of kind {wanted or 'unknown'} needs the path or id of a model")
    found, files = recognise(model)
    if wanted is None or wanted == ANY_DISCRIMINATIVE:
        found = found or (default if wanted is None else None)
        if found is None:
            raise UserError(
                f"{model}: neither config.json nor the name says what kind of verifier this is; say one of "
                f"{', '.join(_REGISTRY)}"
            )
        if wanted == ANY_DISCRIMINATIVE and not _REGISTRY[found].exclusive:
            raise UserError(f"{model} is of kind {found}, which is not discriminative")
        return found, files
    if found is not None and found != wanted and (_REGISTRY[found].exclusive or _REGISTRY[wanted].exclusive):
        raise UserError(
            f"{model} is a verifier of kind {found}, not {wanted}; load_verifier and --verifier {found} take it"
        )
    return wanted, files


def refuse_other_kinds(kind: str, model: str | Path) -> ModelFiles | None:
    """For the classes themselves, which know no registry otherwise: raises `UserError`, with the name of the right
    kind, where ``model`` is of no use to ``kind``. Returns where the model is, if that had to be found out."""
    return resolve_kind(kind, model)[1]


def recognise(model: str | Path) -> tuple[str | None, ModelFiles | None]:
    """(one of :func:`kinds`, where the model is): as the folder or file says, or else its name. None where neither
    does, and where nothing had to be looked for: a known id is not downloaded for that.

    Raises:
      UserError: as of :func:`read_kind`.
    """
    is_here = Path(model).exists()
    name = (Path(model).resolve().name if is_here else str(model)).lower()  # not where a folder lies
    named = next((each.kind for each in _REGISTRY.values() if each.names and re.search(each.names, name)), None)
    if named is not None and not is_here:
        return named, None
    from thinkprm_jax.checkpoint.weights import find_model

    files = find_model(model)
    task, architectures = read_kind(files).get("task"), read_architectures(files)
    for each in _REGISTRY.values():
        if task is not None and each.task == task:
            return each.kind, files
    for each in _REGISTRY.values():
        if architectures & set(each.architectures):
            return each.kind, files
    return named, files
