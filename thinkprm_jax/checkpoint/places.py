"""Where a run's checkpoints are, a folder of this machine or of a bucket, and what makes one of them whole there.

On this machine Orbax writes into a temporary folder and renames it when everything is on disk. A bucket has no
rename: there a checkpoint has its name from the beginning, and is whole when Orbax's file COMMITTED is in it,
which comes last. Deleting goes the other way round: the name or that file goes first, so that what a kill leaves
of an old checkpoint is taken for none.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TypeAlias

from etils import epath

from thinkprm_jax.errors import UserError
from thinkprm_jax.storage import Location, ObjectPath, location

CheckpointFolder: TypeAlias = Path | epath.Path

COMMITTED = "commit_success.txt"
# How Orbax ends the names of what is not whole, and knows it when it clears up.
_TEMPORARY = ".orbax-checkpoint-tmp"


def checkpoint_folder(place: str | Location) -> CheckpointFolder:
    """The folder as Orbax takes it.

    Raises:
      UserError: a store that Orbax does not know.
    """
    found = location(place)
    if isinstance(found, Path):
        return found.absolute()
    check_store(found)
    _settle_filesystem()
    return epath.Path(str(found))


def check_store(place: Location) -> None:
    """UserError where checkpoints cannot be written at all."""
    if isinstance(place, ObjectPath) and place.scheme != "gs":
        raise UserError(
            f"{place}: a training run can live at gs:// or on a path of this machine; Orbax, which writes its "
            f"checkpoints, does not know {place.scheme}://"
        )


def has_checkpoint(run: Location) -> bool:
    """Whether there is a whole checkpoint in the folder of a run."""
    named = (path for path in (run / "checkpoints").glob("[0-9]*") if path.name.isdecimal())
    return any(isinstance(path, Path) or (path / COMMITTED).exists() for path in named)


def named_steps(folder: CheckpointFolder) -> dict[int, CheckpointFolder]:
    """Whatever stands under the name of a checkpoint that is whole."""
    named = {int(path.name): path for path in folder.glob("[0-9]*") if path.name.isdecimal()}
    return {step: path for step, path in named.items() if is_there(path)}


def is_there(checkpoint: CheckpointFolder) -> bool:
    """Whether it passes for a whole one."""
    return checkpoint.exists() if isinstance(checkpoint, Path) else (checkpoint / COMMITTED).exists()


def delete(checkpoint: CheckpointFolder) -> None:
    """An old one. It is none any more from the first moment on."""
    if isinstance(checkpoint, Path):
        doomed = checkpoint.with_name(f"{checkpoint.name}{_TEMPORARY}-deleted")
        checkpoint.rename(doomed)
        shutil.rmtree(doomed)
        return
    (checkpoint / COMMITTED).unlink()
    checkpoint.rmtree()


def _settle_filesystem() -> None:
    """How Orbax's paths ask Google's store.

    Not from memory: TensorStore writes past it, so what it remembers of a folder is not what is there. And by the
    JSON API: gcsfs would first ask every bucket over gRPC which kind it is, and warn where it may not.
    """
    import fsspec
    from gcsfs.core import GCSFileSystem

    for name in ("gs", "gcs"):
        fsspec.register_implementation(name, GCSFileSystem, clobber=True)
        fsspec.config.conf.setdefault(name, {})["use_listings_cache"] = False
