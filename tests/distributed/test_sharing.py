"""A policy's mesh: any names of axes, some of its devices."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from support import processes
from thinkprm_jax.distributed.mesh import MESH_AXES, make_mesh
from thinkprm_jax.distributed.sharing import our_mesh, share_mesh
from thinkprm_jax.errors import UserError


class Device:
    """Enough of one for a mesh."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.process_index, self.platform, self.device_kind, self.client = 0, "cpu", "cpu", None


def mesh_of(sizes: tuple[int, ...], names: tuple[str, ...]) -> Mesh:
    devices = np.asarray([Device(number) for number in range(int(np.prod(sizes)))], dtype=object)
    return Mesh(devices.reshape(sizes), names)


def numbers(mesh: Mesh) -> list:
    return np.vectorize(lambda device: device.id)(mesh.devices).tolist()


@pytest.mark.parametrize(
    ("sizes", "names", "settings", "shape", "ids"),
    [
        ((2, 2), ("dp", "tp"), {}, (2, 1, 2), [[[0, 1]], [[2, 3]]]),
        ((2, 2), ("model", "fsdp"), {}, (1, 2, 2), [[[0, 2], [1, 3]]]),
        ((2, 2), ("x", "y"), {"axes": {"x": "tensor", "y": "data"}}, (2, 1, 2), [[[0, 2]], [[1, 3]]]),
        ((2, 2), ("replica", "dp"), {}, (4, 1, 1), [[[0]], [[1]], [[2]], [[3]]]),
        ((1, 2), ("stage", "tp"), {}, (1, 1, 2), [[[0, 1]]]),
        ((4, 2), ("data", "tensor"), {"take": {"data": 1}}, (1, 1, 2), [[[0, 1]]]),
    ],
)
def test_axes_become_ours(sizes, names, settings, shape, ids):
    found = share_mesh(mesh_of(sizes, names), **settings)
    assert found.axis_names == MESH_AXES
    assert found.devices.shape == shape
    assert set(found.axis_types) == {AxisType.Auto}
    assert numbers(found) == ids


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the mesh's axis 'x' has a name that tells nothing: say axes={'x': \"data\"}"),
        ({"axes": {"z": "data"}}, "axes: the mesh has no axis 'z' .it has: x, tp."),
        ({"axes": {"x": "rows"}}, "axes: 'x' is 'rows', it must be one of data, fsdp, tensor"),
        ({"take": {"x": 3}}, "take: 3 of the 2 devices along 'x'"),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(settings, message):
    with pytest.raises(UserError, match=message):
        share_mesh(mesh_of((2, 2), ("x", "tp")), **settings)


def test_one_of_ours_stays_as_it_is():
    mesh = make_mesh(devices=jax.devices()[:1])
    assert our_mesh(mesh) is mesh
    assert our_mesh(None) is None
    explicit = jax.make_mesh((1, 1, 1), MESH_AXES, devices=jax.devices()[:1])
    assert our_mesh(explicit) == mesh  # its axes are Explicit, as jax.make_mesh has them


PROGRAM = """
import json, jax
from thinkprm_jax import ThinkPRM, share_mesh
items = [("What is 2 + 3?", ["2 + 3 = 5."]), ("What is 4 + 3?", ["4 + 3 = 8."])]
policy = jax.make_mesh((2, 2), ("dp", "tp"))
scores = {}
for name, mesh in {"all": policy, "some": share_mesh(policy, take={"dp": 1}), "none": None}.items():
    prm = ThinkPRM("mini", mesh=mesh, slots=4, max_length=512)
    scores[name] = [verdict.prefix_score for _, verdict in sorted(prm.verify(items), key=lambda x: x[0])]
    prm.update_weights(jax.tree.map(lambda x: x, prm.sampler._weights._state))
    scores[name + " updated"] = [v.prefix_score for _, v in sorted(prm.verify(items), key=lambda x: x[0])]
print(json.dumps(scores))
"""


@pytest.mark.slow
def test_a_verifier_on_a_policys_mesh_says_the_same():
    scores = processes.answer(PROGRAM, devices=4)
    for name, found in scores.items():
        np.testing.assert_allclose(found, scores["none"], atol=1e-5, err_msg=name)
