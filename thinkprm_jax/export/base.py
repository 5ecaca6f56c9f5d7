"""What a run keeps of the model that it began with: ``base.json``.

Enough to export the run without that model, to say where it came from, and to notice that the weights under its
name are no longer the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from thinkprm_jax.checkpoint.files import CARD
from thinkprm_jax.checkpoint.fingerprint import fingerprint, is_fingerprint_of
from thinkprm_jax.checkpoint.huggingface import read_generation_config
from thinkprm_jax.checkpoint.places import has_checkpoint
from thinkprm_jax.checkpoint.weights import BUNDLED, ModelFiles, find_model
from thinkprm_jax.errors import UserError
from thinkprm_jax.gguf_header import read_header
from thinkprm_jax.records.files import write_json
from thinkprm_jax.storage import Location
from thinkprm_jax.user_files import lone_surrogate, read_json

BASE_FILE = "base.json"
_FIELDS = {"model": str, "fingerprint": str, "license": str, "generation_config": dict}


def portable_name(path_or_id: str | Path) -> str:
    """A name that means the same from another working directory: a hub id as it is, a folder or file in full."""
    place = Path(path_or_id).expanduser()
    named = str(path_or_id) not in BUNDLED and place.exists()
    return str(place.resolve()) if named else str(path_or_id)


def keep_base(folder: Location, path_or_id: str | Path) -> None:
    """Writes base.json into the folder of a run that has no checkpoint yet; later it stays as it is."""
    if (folder / BASE_FILE).is_file() and has_checkpoint(folder):
        return
    found = find_model(path_or_id)
    content = {
        "model": portable_name(path_or_id),
        "fingerprint": fingerprint(found),
        "license": _license(found.base),
        "generation_config": read_generation_config(found.base),
    }
    write_json(folder / BASE_FILE, content)


def read_base(folder: Location) -> Mapping[str, Any]:
    """The content of a run's base.json; {} where there is none."""
    path = folder / BASE_FILE
    content = read_json(path) if path.is_file() else {}
    for name, kind in _FIELDS.items():
        value = content.get(name)
        if value is not None and not isinstance(value, kind):
            raise UserError(f"{path}: {name} must be {'an object' if kind is dict else 'a text'}, not {value!r}")
    return content


def check_base(folder: Location, found: ModelFiles, name: str | Path) -> None:
    """Raises `UserError` where ``found`` has other weights than base.json of the run says."""
    expected = read_base(folder).get("fingerprint")
    if expected is not None and not is_fingerprint_of(expected, found):
        raise UserError(f"{name}: its weights are not those that the run in {folder} began with")


def _license(place: Path) -> str | None:
    """As the header of the model card says, or the metadata of a GGUF file."""
    if place.is_file():
        said = read_header(place).metadata.get("general.license")
        return said if isinstance(said, str) else None
    path = place / CARD
    if not path.is_file():
        return None
    parts = path.read_text(encoding="utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip() or len(parts[1]) > _LONGEST_HEADER:
        return None
    try:
        header = yaml.safe_load(parts[1])
    except Exception:  # not only YAMLError: a tag on a text that it does not fit fails in any way
        return None
    found = header.get("license") if isinstance(header, dict) else None
    return found if isinstance(found, str) and lone_surrogate(found) is None else None


_LONGEST_HEADER = 2**16  # characters
