"""Uploading a model folder to the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thinkprm_jax.checkpoint.files import CARD, MODEL_FILES
from thinkprm_jax.errors import UserError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_access(repository: str) -> None:
    """Before the work begins: raises `UserError` for an impossible name, or where nobody is logged in."""
    if not _REPOSITORY.fullmatch(repository):
        raise UserError(f"{repository!r} is no repository of the Hugging Face Hub; write OWNER/NAME")
    _call(repository, lambda hub: hub.whoami())


def upload(folder: Path, repository: str, message: str) -> None:
    """The model in ``folder``, in one commit that also removes an older one; other files there stay at home.

    Where there is no such repository, a private one is made.

    Raises:
      UserError: the hub refused, or cannot be reached; the folder stays as it is.
    """

    def push(hub: Any) -> None:
        hub.create_repo(repository, private=True, exist_ok=True)
        patterns = [*MODEL_FILES, CARD]
        hub.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            commit_message=message,
            allow_patterns=patterns,
            delete_patterns=patterns,
        )

    _call(repository, push)


def _call(repository: str, act: Callable[[Any], object]) -> None:
    import huggingface_hub  # here: only those who push wait for it

    try:
        act(huggingface_hub.HfApi())
    except Exception as error:  # the hub raises a dozen kinds: not logged in, no right, offline, time-out
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{repository}: not uploaded ({reason})") from error
