"""The verifier's settings on the command line, the same for every program that runs one.

Every field of every kind's settings is an option.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.distributed.mesh_option import AUTO, OPTION, check_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.verifier.registry import (
    ANY_DISCRIMINATIVE,
    all_settings,
    default_settings,
    judges,
    kinds,
    settings_class,
)
from thinkprm_jax.verifier.settings import SettingField, VerifierSettings, settings_of

if TYPE_CHECKING:
    from jax.sharding import Mesh

DEFAULT_MODEL, DEFAULT_KIND = "mini", "thinkprm"


def add_mesh_option(parser: Any) -> None:
    parser.add_argument(
        OPTION,
        metavar="AXES",
        help=f"devices of this machine: data=2,tensor=4 is two copies of the model on four each; data=-1: as many "
        f"copies as there are devices; {AUTO}: as few devices a copy as its memory needs (default: one device)",
    )


def add_verifier_options(parser: argparse.ArgumentParser, slots: int | None = None) -> None:
    """slots: the default for --slots in place of the settings' own."""
    add = parser.add_argument_group("verifier").add_argument
    add("--model", help=f"mini (bundled), a Hugging Face folder or id (default: {DEFAULT_MODEL})")
    judging = [kind for kind in kinds() if judges(kind)]
    add(
        "--verifier",
        "--prm-type",
        metavar="KIND",
        help=f"{', '.join(judging[:-1])} or {judging[-1]} (default: what config.json or the name of the model "
        f"says, else {DEFAULT_KIND})",
    )
    add_mesh_option(parser)
    for name, (field, takers) in all_settings().items():
        if not field.option:
            continue
        default = field.default if field.info.shared else None
        shown = field.default
        if name == "slots" and slots is not None:
            default = shown = slots
        arguments: dict[str, Any] = {"dest": name, "default": default, "help": _help(field, takers, shown)}
        if field.type is bool:
            arguments["action"] = "store_true"
        else:
            arguments |= {"type": field.type, "choices": field.choices or None}
            arguments |= {} if field.choices else {"metavar": name.upper()}
        add(field.option, **arguments)


def choose_verifier(options: argparse.Namespace) -> VerifierSettings:
    """The verifier that the options of :func:`add_verifier_options` describe. Switches the compilation cache on.

    Raises:
      UserError: an option that this kind does not take was given, or a value cannot work.
    """
    from thinkprm_jax.runtime import enable_compilation_cache

    check_mesh(options.mesh)
    if not judges(options.verifier):
        raise UserError(f"--verifier {options.verifier} gives no verdicts: it is for `thinkprm search`")
    enable_compilation_cache()
    model, kind = options.model, options.verifier
    if kind is None and model is None and options.server is not None:
        kind = "server"
    if model is None and (kind in (None, ANY_DISCRIMINATIVE) or settings_class(kind).needs_model):
        model = DEFAULT_MODEL
    found = default_settings(model, kind=kind, default=DEFAULT_KIND)
    known = settings_of(type(found))
    values = {}
    for name, (field, _) in all_settings().items():
        value = getattr(options, name) if field.option else None
        if value is None:
            continue
        if name in known:
            values[name] = value
        elif not field.info.shared and value != field.default:
            which = f", which {model} is" if found.needs_model else ""
            raise UserError(f"{field.option} is no option of the verifier {found.kind}{which}")
    found = found.changed(**values)
    if options.mesh is not None and not found.needs_model:
        raise UserError(f"{OPTION} {options.mesh}: a verifier of kind {found.kind} has no model on this machine")
    return found


def place_chosen(options: argparse.Namespace, settings: VerifierSettings) -> tuple[VerifierSettings, Mesh | None]:
    """The devices of the verifier, and its settings on them: ``--slots`` is of each copy of the model.

    Raises:
      UserError: --mesh asks for what is not there.
    """
    import jax

    from thinkprm_jax.verifier.placement import place_verifier

    if options.mesh is None and settings.needs_model and (count := jax.local_device_count()) > 1:
        print(f"one of the {count} devices here is used: {OPTION} {AUTO} uses all", file=sys.stderr)
    return place_verifier(settings, options.mesh)


def _help(field: SettingField, takers: Sequence[str], default: Any) -> str:
    whose = f"{takers[0]}: " if len(takers) == 1 else ""
    shown = (
        "" if default is None or default is False or "(default" in field.info.help else f" (default: {default})"
    )
    return whose + field.info.help + shown
