"""`--mesh` as people write it, what it is refused for, and the mesh of `auto`."""

from __future__ import annotations

import json

import pytest

from support import processes, tiny_model
from thinkprm_jax import cli
from thinkprm_jax.distributed.mesh_option import check_mesh, parse_mesh, show_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.infer import serve
from thinkprm_jax.verifier.placement import place_verifier
from thinkprm_jax.verifier.registry import verifier_settings

# (settings, mesh, memory of a device) -> the mesh and the slots; or what is said instead.
PROGRAM = """
import json, sys
from thinkprm_jax.distributed.mesh_option import show_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.verifier.placement import place_verifier
from thinkprm_jax.verifier.registry import verifier_settings

settings = verifier_settings(sys.argv[1], kind="thinkprm", max_length=512, slots=4)
found = []
for mesh, memory in json.loads(sys.argv[2]):
    try:
        placed, devices = place_verifier(settings, mesh, memory)
        found.append([show_mesh(devices), placed.slots])
    except UserError as error:
        found.append(str(error))
print(json.dumps(found))
"""


def test_axes_that_are_not_named_are_one():
    assert parse_mesh("tensor=4, data=2") == {"data": 2, "fsdp": 1, "tensor": 4}
    assert parse_mesh("data=-1", rest=True) == {"data": -1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("heads=4", "--mesh heads=4: there is no axis 'heads'; did you mean"),
        ("data=0", "--mesh data=0: data needs a positive number, or -1 for whatever is left, not '0'"),
        ("data=2,data=4", "--mesh data=2,data=4: data is given twice"),
        ("data=-1,tensor=-1", "--mesh data=-1,tensor=-1: one of the sizes may be -1, not two"),
        ("data=٣", "data needs a positive number"),
        ("", "there is no axis ''"),
    ],
)
def test_what_means_nothing_is_said_before_a_device_is_looked_at(text, said):
    with pytest.raises(UserError) as raised:
        check_mesh(text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_one_device_needs_no_mesh():
    assert place_verifier(verifier_settings("mini"), "data=1")[1] is None
    assert show_mesh(None) == "one device"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mesh", "data=64"], "--mesh data=64 needs 64 devices, this process has 1"),
        (["--mesh", "data=2", "--server", "http://127.0.0.1:1"], "a verifier of kind server has no model"),
    ],
)
def test_score_says_what_cannot_be_in_one_line(options, said, tmp_path, capsys):
    rows = tmp_path / "in.jsonl"
    rows.write_text('{"problem": "1 + 1?", "steps": ["1 + 1 = 2."]}\n')
    assert cli.main(["score", str(rows), "--output", str(tmp_path / "out.jsonl"), *options]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_serve_has_the_same_option():
    assert serve.parse(["--mesh", "auto"]).mesh == "auto"


def test_meshes_of_eight_devices(tmp_path):
    """A random model of two heads, 0.2 MB: one device holds it, unless it is said to have less memory."""
    model = tiny_model.save_folder(tmp_path / "tiny")
    asked = [
        ["data=2,tensor=2", None],
        ["data=-1", None],
        ["data=9", None],
        ["tensor=4", None],
        ["auto", 10**9],
        ["auto", 10**5],
    ]
    found = processes.answer(PROGRAM, model, json.dumps(asked), devices=8)
    assert found[:2] == [["data=2,tensor=2", 8], ["data=8", 32]]
    assert found[2] == "--mesh data=9 needs 9 devices, this process has 8"
    assert found[3] == f"--mesh tensor=4: the 2 heads of {model} are no multiple of tensor=4"
    assert found[4] == ["data=8", 32]
    assert "--mesh auto:" in found[5]
    assert "with one slot" in found[5]
