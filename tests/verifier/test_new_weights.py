"""Weights that change between two verdicts, or in the middle of a run: never mixed, nothing left of the old."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from support import processes, tiny_model
from thinkprm_jax.checkpoint.huggingface import save_model
from thinkprm_jax.data.discriminative import PUBLISHED
from thinkprm_jax.errors import UserError
from thinkprm_jax.sampler import Sampler
from thinkprm_jax.verifier.base import Verdict
from thinkprm_jax.verifier.discriminative import DiscriminativePRM
from thinkprm_jax.verifier.thinkprm import ThinkPRM

LAYERS = 1
ITEMS = [(f"What is {a} + {a}?", [f"{a} + {a} = {2 * a}.", f"The answer is {2 * a}."]) for a in range(3, 13)]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_model.load_tokenizer()


def decoder(seed: int):
    return tiny_model.make_decoder(tiny_model.load_tokenizer(), seed, LAYERS)


def verifier(model, **values) -> ThinkPRM:
    sampler = Sampler(model, tiny_model.load_tokenizer(), slots=4, max_length=512, chunk=8, prefix_cache=256)
    return ThinkPRM(sampler=sampler, **{"max_gen_tokens": 40, "temperature": 0.5, "n": 2, **values})


def judge(prm, items=ITEMS) -> list[Verdict]:
    return [verdict for _, verdict in sorted(prm.verify(items), key=lambda found: found[0])]


@pytest.fixture(scope="module")
def fresh() -> dict[int, list[Verdict]]:
    """What verifiers say that never had other weights, by the seed of the model."""
    return {seed: judge(verifier(decoder(seed))) for seed in (0, 1)}


def check(found: list[Verdict], wanted: list[Verdict]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert abs(ours.prefix_score - theirs.prefix_score) < 1e-6
        np.testing.assert_allclose(ours.step_scores, theirs.step_scores, atol=1e-6)
        assert [chain.output for chain in ours.chains] == [chain.output for chain in theirs.chains]


def arrays(model) -> dict[str, jax.Array]:
    return {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def hugging_face_names(model, folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    save_model(model, tiny_model.load_tokenizer(), folder)
    return load_file(folder / "model.safetensors")


def orbax_folder(model, folder: Path) -> Path:
    from orbax.checkpoint import v1 as ocp

    ocp.save(folder.absolute(), nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    return folder


@pytest.mark.parametrize("source", ["names", "state", "module", "hugging face names", "folder", "orbax"])
def test_after_an_update_all_is_as_with_a_fresh_verifier(source, fresh, tmp_path):
    prm, other = verifier(decoder(0)), decoder(1)
    check(judge(prm), fresh[0])
    compiled = prm.sampler.compilations
    weights = {
        "names": lambda: arrays(other),
        "state": lambda: nnx.state(other),
        "module": lambda: other,
        "hugging face names": lambda: hugging_face_names(other, tmp_path / "model"),
        "folder": lambda: tiny_model.save_folder(tmp_path / "model", 1, LAYERS),
        "orbax": lambda: orbax_folder(other, tmp_path / "saved"),
    }[source]()
    assert prm.update_weights(weights) == prm.weight_version == 1
    found = judge(prm)
    check(found, fresh[1])
    assert {verdict.weight_version for verdict in found} == {1}
    assert found[0].record().to_dict()["weight_version"] == 1
    assert prm.sampler.compilations == compiled


def test_a_run_goes_on_with_new_weights_in_its_middle(fresh):
    prm = verifier(decoder(0))
    judge(prm, ITEMS[:1])
    found: dict[int, Verdict] = {}
    run = prm.verify(ITEMS)
    for _ in range(3):
        index, found[index] = next(run)
    assert prm.sampler.activity.running > 0  # others are under way
    assert prm.update_weights(nnx.state(decoder(1))) == 1
    found |= dict(run)
    versions = {index: verdict.weight_version for index, verdict in found.items()}
    assert set(versions.values()) == {0, 1}
    for index, verdict in found.items():
        check([verdict], [fresh[versions[index]][index]])


FRESH = """
import json
from verifier.test_new_weights import decoder, judge, verifier

found = judge(verifier(decoder(1)))
print(json.dumps([[v.prefix_score, list(v.step_scores), [c.output for c in v.chains]] for v in found]))
"""


@pytest.fixture(scope="module")
def of_another_process() -> list[tuple[float, list[float], list[str]]]:
    """What a process says that never had other weights than the new ones."""
    return processes.answer(FRESH)


@pytest.mark.parametrize("before", [0, 3], ids=["between two runs", "in the middle of a run"])
def test_after_an_update_scores_are_those_of_a_fresh_process(before, of_another_process):
    prm = verifier(decoder(0))
    judge(prm, ITEMS[:2])  # there is something of the old weights to forget
    run = prm.verify(ITEMS)
    found = dict(next(run) for _ in range(before)) if before else dict(run)
    assert prm.update_weights(nnx.state(decoder(1))) == 1
    found |= dict(run if before else prm.verify(ITEMS))
    new = {index: verdict for index, verdict in found.items() if verdict.weight_version == 1}
    assert len(new) == len(ITEMS) if not before else 0 < len(new) <= len(ITEMS) - before
    for index, verdict in new.items():
        score, steps, chains = of_another_process[index]
        assert abs(verdict.prefix_score - score) < 1e-6
        np.testing.assert_allclose(verdict.step_scores, steps, atol=1e-6)
        assert [chain.output for chain in verdict.chains] == chains


def test_values_given_to_the_variables_count_from_the_next_solution_on(fresh):
    model = decoder(0)
    prm = verifier(model)
    check(judge(prm), fresh[0])
    nnx.update(model, nnx.state(decoder(1)))
    check(judge(prm), fresh[1])
    nnx.update(model, nnx.state(decoder(0)))
    check(judge(prm), fresh[0])
    assert prm.weight_version == 2


def test_old_weights_are_not_kept_while_nothing_runs():
    model = decoder(0)
    prm = verifier(model)
    judge(prm, ITEMS[:2])
    old = weakref.ref(model.embed.embedding.get_raw_value())
    nnx.update(model, nnx.state(decoder(1)))
    gc.collect()
    assert old() is None


def test_values_given_to_the_variables_while_solutions_are_judged_are_not_mixed(fresh):
    model = decoder(0)
    prm = verifier(model)
    run = prm.verify(ITEMS)
    first, verdict = next(run)
    nnx.update(model, nnx.state(decoder(1)))
    found = {first: verdict, **dict(run)}
    assert {verdict.weight_version for verdict in found.values()} == {0, 1}
    for index, verdict in found.items():
        check([verdict], [fresh[verdict.weight_version][index]])


def test_donated_weights_fail_what_ran_with_them_and_nothing_else(fresh):
    model = decoder(0)
    prm = verifier(model)
    handle = prm.submit(*ITEMS[0])
    prm.sampler.step()
    train = jax.jit(lambda state: jax.tree.map(lambda x: x + 0, state), donate_argnums=0)
    train(nnx.state(model))
    nnx.update(model, nnx.state(decoder(1)))
    later = judge(prm)
    assert "donated" in str(handle.result().error)
    check(later, fresh[1])


def test_updates_from_threads_while_others_judge(fresh):
    prm, states = verifier(decoder(0)), [nnx.state(decoder(0)), nnx.state(decoder(1))]
    judged: list[list[Verdict]] = []
    threads = [threading.Thread(target=lambda: judged.append(judge(prm))) for _ in range(3)]
    for thread in threads:
        thread.start()
    versions = [prm.update_weights(states[number % 2]) for number in range(1, 4)]
    for thread in threads:
        thread.join()
    assert versions == [1, 2, 3]
    for verdicts in judged:
        for index, verdict in enumerate(verdicts):
            check([verdict], [fresh[verdict.weight_version % 2][index]])


def test_what_was_given_may_be_deleted_afterwards(fresh):
    prm, given = verifier(decoder(0)), arrays(decoder(1))
    prm.update_weights(given)
    for array in given.values():
        array.delete()
    check(judge(prm), fresh[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: names.pop("norm.scale"), "missing: norm.scale"),
        (lambda names: names.update(extra=jnp.zeros(3)), "unknown: extra"),
        (lambda names: names.update({"norm.scale": jnp.zeros(3)}), r"wrong shape: norm.scale \[3\] instead of"),
        (lambda names: names.update({"norm.scale": "text"}), "norm.scale is str, no array"),
    ],
)
def test_weights_that_do_not_fit_leave_the_old_ones(change, message, fresh):
    prm, names = verifier(decoder(0)), arrays(decoder(1))
    change(names)
    with pytest.raises(UserError, match=message):
        prm.update_weights(names)
    check(judge(prm, ITEMS[:2]), fresh[0][:2])
    assert prm.weight_version == 0


def test_a_variable_of_another_shape_is_refused():
    model = decoder(0)
    prm = verifier(model)
    judge(prm, ITEMS[:1])
    model.norm.scale.set_value(jnp.ones(7))
    with pytest.raises(UserError, match=r"norm.scale is now float32 \[7\], it was float32 \[32\]"):
        judge(prm, ITEMS[:1])


def test_no_such_folder(tmp_path):
    prm = verifier(decoder(0))
    with pytest.raises(UserError, match="no such folder"):
        prm.update_weights(tmp_path / "none")
    with pytest.raises(UserError, match="holds no weights that can be read"):
        prm.update_weights(tmp_path)


def test_a_verifier_without_chains(tokenizer):
    one, two = (
        DiscriminativePRM(model=decoder(seed), tokenizer=tokenizer, layout=PUBLISHED, max_length=512)
        for seed in (0, 1)
    )
    wanted = judge(two)
    assert [v.prefix_score for v in judge(one)] != [v.prefix_score for v in wanted]
    assert one.update_weights(nnx.state(decoder(1))) == 1
    found = judge(one)
    np.testing.assert_allclose([v.step_scores for v in found], [v.step_scores for v in wanted], atol=1e-6)
    assert {verdict.weight_version for verdict in found} == {1}
