"""Verdicts inside jit against those of the host's engine, on the bundled models."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from support import processes
from thinkprm_jax import ThinkPRM, score_tokens, token_prompts, verifier_params, verify_tokens
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_case

STEPS = 4
VERIFY = jax.jit(verify_tokens, static_argnames=("max_tokens", "rows"))
CASES = [arithmetic_case(5, index, "test") for index in range(8)]
PROBLEMS, SOLUTIONS = [case.problem for case in CASES], [list(case.steps) for case in CASES]


@functools.cache
def verifier(model: str = "mini-weak", **settings) -> ThinkPRM:
    return ThinkPRM(model, max_length=1024, slots=8, **{"temperature": 0.0, "max_gen_tokens": 70, **settings})


@functools.cache
def compared(**settings):
    """(verifier, params, prompts, verdicts inside jit, verdicts of the host)."""
    prm = verifier(**settings)
    params = verifier_params(prm, max_steps=STEPS)
    prompts = token_prompts(prm, PROBLEMS, SOLUTIONS, length=128)
    found = VERIFY(params, prompts, max_tokens=prm.settings.max_gen_tokens)
    host = prm.predict_correctness_batch(PROBLEMS, SOLUTIONS)
    return prm, params, prompts, jax.tree.map(np.asarray, found), host


@pytest.mark.parametrize(
    "settings",
    [{}, {"rounds": 2, "max_gen_tokens": 40, "temperature": 1.0}],
    ids=["one greedy round", "two sampled rounds"],
)
def test_verdicts_are_those_of_the_host(settings):
    _, _, _, found, host = compared(**settings)
    assert any(any(result["step_forced"][0]) for result in host), "no chain was silent about a step"
    assert found.covered.sum() >= len(host) - 2
    for row in np.flatnonzero(found.covered):
        steps, result = len(SOLUTIONS[row]), host[row]
        assert found.step_labels[row, :steps].tolist() == result["step_labels"][0]
        assert found.step_forced[row, :steps].tolist() == result["step_forced"][0]
        assert found.output_tokens[row] == result["output_tokens"][0]
        assert found.stopped[row] == (result["finish_reasons"][0] == "stop")
        np.testing.assert_allclose(found.prefix_score[row], result["prefix_score"], atol=1e-5)
        np.testing.assert_allclose(found.step_scores[row, :steps], result["step_scores"][0], atol=1e-5)
        assert not found.step_labels[row, steps:].any()


def test_the_context_that_comes_back_is_that_of_the_host():
    prm, _, prompts, found, host = compared()
    for row, result in enumerate(host):
        chain = found.ids[row, prompts.lengths[row] : found.lengths[row]]
        assert prm.tokenizer.decode(chain) == result["outputs"][0]


def test_scores_of_the_chains_are_those_of_one_pass():
    _, params, _, found, _ = compared()
    scores = jax.jit(score_tokens)(params, found.ids, found.spans)
    np.testing.assert_allclose(scores.prefix_score, found.prefix_score, atol=1e-5)
    known = found.spans.steps >= 0
    assert known.sum() >= len(CASES)
    np.testing.assert_allclose(np.asarray(scores.step_scores)[known], found.step_scores[known], atol=1e-5)
    assert np.isnan(np.asarray(scores.step_scores)[~known]).all()


def test_groups_of_rows_below_vmap_say_the_same():
    prm, params, prompts, found, _ = compared()
    verify = functools.partial(verify_tokens, max_tokens=prm.settings.max_gen_tokens, rows=2)
    pairs = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), prompts)
    mapped = jax.jit(jax.vmap(verify, (None, 0)))(params, pairs)
    mapped = jax.tree.map(lambda x: x.reshape(8, *x.shape[2:]), mapped)
    np.testing.assert_array_equal(mapped.step_labels, found.step_labels)
    np.testing.assert_array_equal(mapped.ids, found.ids)
    np.testing.assert_allclose(mapped.prefix_score, found.prefix_score, atol=1e-6)


def test_new_weights_compile_nothing_and_two_models_are_mapped_over():
    prm, params, prompts, found, _ = compared()
    other = dataclasses.replace(params, weights=jax.tree.map(lambda x: x * 1.01, params.weights))
    before = VERIFY._cache_size()
    changed = VERIFY(other, prompts, max_tokens=prm.settings.max_gen_tokens)
    same = verifier_params(prm, max_steps=STEPS)
    VERIFY(same, prompts, max_tokens=prm.settings.max_gen_tokens)
    assert VERIFY._cache_size() == before
    assert (changed.prefix_score != found.prefix_score).any()
    both = jax.tree.map(lambda *x: jnp.stack(x), params, other)
    few = jax.tree.map(lambda x: x[:2], prompts)
    verify = functools.partial(verify_tokens, max_tokens=8)
    mapped = jax.jit(jax.vmap(verify, (0, None)))(both, few)
    assert (mapped.prefix_score[0] != mapped.prefix_score[1]).all()


def test_a_training_step_holds_both_and_its_gradient_is_that_of_finite_differences():
    """One jitted step: chains are written with the weights, then their scores are differentiated."""
    _, params, prompts, _, _ = compared()
    few = jax.tree.map(lambda x: x[:2], prompts)

    def loss(params, scale):
        moved = dataclasses.replace(params, weights=jax.tree.map(lambda x: x * scale, params.weights))
        chains = verify_tokens(params, few, max_tokens=24)
        scores = score_tokens(moved, chains.ids, chains.spans)
        return jnp.log(scores.prefix_score).sum() + jnp.nansum(jnp.log(scores.step_scores))

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    _, (of_weights, of_scale) = step(params, 1.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of_weights))
    near = [float(step(params, 1.0 + change)[0]) for change in (-1e-3, 1e-3)]
    np.testing.assert_allclose(of_scale, (near[1] - near[0]) / 2e-3, rtol=2e-2)
    # The gradient of the weights along themselves is that of the scale.
    along = sum(jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (of_weights, params.weights)), strict=True))
    np.testing.assert_allclose(along, of_scale, rtol=1e-4)


SHARDED = """
import functools, jax, numpy as np
from jax.sharding import PartitionSpec as P
from thinkprm_jax import ThinkPRM, token_prompts, verifier_params, verify_tokens
from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_case

prm = ThinkPRM("mini-weak", temperature=0.0, max_gen_tokens=16, max_length=512)
params = verifier_params(prm, max_steps=4)
cases = [arithmetic_case(5, index, "test") for index in range(8)]
prompts = token_prompts(prm, [c.problem for c in cases], [list(c.steps) for c in cases], length=128)
verify = functools.partial(verify_tokens, max_tokens=16)
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
sharded = jax.jit(jax.shard_map(verify, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data")))
ours, whole = sharded(params, prompts), jax.jit(verify)(params, prompts)
assert len(ours.prefix_score.sharding.device_set) == 8
np.testing.assert_array_equal(ours.step_labels, whole.step_labels)
np.testing.assert_array_equal(ours.ids, whole.ids)
np.testing.assert_allclose(ours.prefix_score, whole.prefix_score, atol=1e-5)
print('"equal"')
"""


def test_eight_devices_share_the_rows():
    assert processes.answer(SHARDED, devices=8) == "equal"


def test_what_cannot_be_is_refused():
    prm, params, prompts, _, _ = compared()
    with pytest.raises(UserError, match="max_tokens is 0"):
        verify_tokens(params, prompts, max_tokens=0)
    with pytest.raises(UserError, match="rows is 3"):
        verify_tokens(params, prompts, max_tokens=8, rows=3)
    with pytest.raises(UserError, match="positions"):
        verify_tokens(params, prompts, max_tokens=4096)
    with pytest.raises(UserError, match="stop_at_unknown_step"):
        verifier_params(ThinkPRM(sampler=prm.sampler, stop_at_unknown_step=True))
    with pytest.raises(RequestError, match="solution 1: it has 5 steps"):
        token_prompts(prm, ["a", "b"], [["1."], ["1."] * 5], max_steps=STEPS)
    with pytest.raises(RequestError, match="a prompt has"):
        token_prompts(prm, PROBLEMS, SOLUTIONS, length=16)


def test_a_row_with_too_many_steps_is_not_judged():
    _, params, prompts, _, _ = compared()
    many = dataclasses.replace(prompts, steps=np.full_like(prompts.steps, STEPS + 1))
    found = VERIFY(params, many, max_tokens=70)
    assert np.isnan(found.prefix_score).all()
    assert np.isnan(found.step_scores).all()
    assert not found.covered.any()


def test_weights_may_come_from_a_model_in_training():
    _, params, prompts, found, _ = compared()
    model = params.model()
    again = dataclasses.replace(params, weights=nnx.state(model))
    np.testing.assert_array_equal(VERIFY(again, prompts, max_tokens=70).ids, found.ids)
