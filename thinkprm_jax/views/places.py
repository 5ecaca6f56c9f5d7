"""Options that name a file or a folder, here or in a store."""

from __future__ import annotations

import argparse

from thinkprm_jax.errors import UserError
from thinkprm_jax.storage import Location, location


def place_option(text: str) -> Location:
    """``type=place_option`` of an option: :func:`.storage.location`, whose message argparse would drop."""
    try:
        return location(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
