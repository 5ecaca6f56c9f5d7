"""base.json of a run: what is wrong in it is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.export.base import BASE_FILE, read_base


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("generation_config", True, "an object"),
        ("generation_config", "ab", "an object"),
        ("fingerprint", 3, "a text"),
    ],
)
def test_a_field_of_another_kind_is_named(tmp_path: Path, field: str, value: object, kind: str) -> None:
    (tmp_path / BASE_FILE).write_text(json.dumps({"model": "m", field: value}))
    with pytest.raises(UserError, match=rf"{BASE_FILE}: {field} must be {kind}, not {value!r}"):
        read_base(tmp_path)


def test_a_run_without_one_has_no_base(tmp_path: Path) -> None:
    assert read_base(tmp_path) == {}
