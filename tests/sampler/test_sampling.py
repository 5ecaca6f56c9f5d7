"""Drawing tokens: the right distribution, the right support, and nothing that depends on other rows."""

from __future__ import annotations

import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thinkprm_jax.model.decode_step import largest
from thinkprm_jax.sampler import sampling
from thinkprm_jax.sampler.buckets import length_buckets
from thinkprm_jax.sampler.cache_store import round_up
from thinkprm_jax.sampler.sampling import _keep_top, log_probabilities, sample

VOCAB = 1000
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler"
)


@pytest.fixture(scope="module")
def logits():
    return jnp.asarray(np.random.default_rng(0).normal(size=VOCAB) * 2.5, jnp.float32)


# As users compile it: here the draws take the time, and not their compilation.
draws = jax.jit(
    sample, compiler_options={"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
)


draw_candidate = jax.jit(sampling._draw_candidate, static_argnums=5)
draw_whole = jax.jit(sampling._draw)
keep_top = jax.jit(_keep_top)


def draw(logits, count, temperature=1.0, top_k=0, top_p=1.0):
    """``count`` draws at positions 0 .. count - 1 under one key."""
    ones = np.ones(count)
    return np.asarray(
        draws(
            jnp.tile(logits, (count, 1)),
            jnp.asarray(ones * temperature, jnp.float32),
            jnp.asarray(ones * top_k, jnp.int32),
            jnp.asarray(ones * top_p, jnp.float32),
            jnp.asarray(np.tile([3, 4], (count, 1)), jnp.uint32),
            jnp.arange(count),
        )
    )


def probabilities(logits, temperature=1.0, top_k=0, top_p=1.0):
    """The textbook way, by sorting: temperature, then top-k, then top-p (as transformers does)."""
    scaled = np.asarray(logits, np.float64) / temperature
    order = np.argsort(-scaled)
    p = np.exp(scaled - scaled.max())
    if top_k:
        p[order[top_k:]] = 0
    p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= top_p]] = 0
    return p / p.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6},
        {"top_k": 7},
        {"top_p": 0.8},
        {"temperature": 1.4, "top_k": 40, "top_p": 0.9},
    ],
)
def test_frequencies_follow_the_distribution(logits, settings):
    count = 20_000
    expected = probabilities(logits, **settings)
    drawn = np.bincount(draw(logits, count, **settings), minlength=VOCAB)
    assert not drawn[expected == 0].any()
    # Chi-square over the tokens that are expected at least ten times; the rest in one bin.
    common = expected * count >= 10
    observed = np.append(drawn[common], drawn[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum()) * count
    keep = wanted > 0
    chi = ((observed - wanted)[keep] ** 2 / wanted[keep]).sum()
    degrees = keep.sum() - 1
    assert chi < degrees + 5 * np.sqrt(2 * degrees)


def test_the_support_is_exact_at_every_threshold(logits):
    for top_k in (1, 2, 17, VOCAB, 2 * VOCAB):
        kept = _keep_top(logits[None], jnp.asarray([top_k]), jnp.asarray([1.0]))[0]
        assert np.isfinite(kept).sum() == min(top_k, VOCAB)
        assert set(np.flatnonzero(np.isfinite(kept))) == set(np.argsort(-np.asarray(logits))[:top_k])
    for top_p in (0.01, 0.3, 0.77, 0.999):
        kept = _keep_top(logits[None], jnp.asarray([0]), jnp.asarray([top_p]))[0]
        expected = probabilities(logits, top_p=top_p) > 0
        assert abs(int(np.isfinite(kept).sum()) - int(expected.sum())) <= 1  # float32 sums against float64


def test_zero_temperature_takes_the_most_likely_beside_rows_that_draw(logits):
    rows = jnp.tile(logits, (4, 1))
    keys = jnp.asarray([[0, i] for i in range(4)], jnp.uint32)
    temperature = jnp.asarray([0.0, 1.0, 0.0, 5.0])
    tokens = sample(rows, temperature, jnp.zeros(4, int), jnp.ones(4), keys, jnp.arange(4))
    assert tokens[0] == tokens[2] == jnp.argmax(logits)


def test_a_row_draws_the_same_alone_and_among_others(logits):
    among = draw(logits, 64, temperature=1.2, top_p=0.9)
    for position in (0, 13, 63):
        alone = sample(
            logits[None],
            jnp.asarray([1.2]),
            jnp.asarray([0]),
            jnp.asarray([0.9]),
            jnp.asarray([[3, 4]], jnp.uint32),
            jnp.asarray([position]),
        )
        assert alone[0] == among[position]


def test_extreme_logits_never_draw_an_impossible_token():
    """All mass on the last token, on the first, or spread over a few among -inf."""
    for possible in ([VOCAB - 1], [0], [5, 300, 999]):
        logits = jnp.full(VOCAB, -jnp.inf).at[jnp.asarray(possible)].set(1e4)
        assert set(draw(logits, 2_000).tolist()) == set(possible)
        assert set(draw(logits, 200, top_k=VOCAB, top_p=0.99).tolist()) <= set(possible)


def test_log_probabilities_equal_log_softmax(logits):
    ids = jnp.asarray([[1, 5, 999]])
    expected = jax.nn.log_softmax(logits)[ids[0]]
    np.testing.assert_allclose(log_probabilities(logits[None], ids)[0], expected, rtol=1e-6)


def test_buckets_end_at_the_maximum_itself():
    assert length_buckets(32, 200) == (32, 48, 64, 96, 128, 192, 200)
    assert length_buckets(128, 128) == (128,)
    assert length_buckets(64, 65) == (64, 65)
    sizes = length_buckets(128, 8192)
    assert all(b / a <= 1.5 for a, b in itertools.pairwise(sizes))
    assert [round_up(n, sizes) for n in (1, 128, 129, 8192)] == [128, 128, 192, 8192]
    with pytest.raises(ValueError, match="8193"):
        round_up(8193, sizes)


def hard_logits(kind: str, rng: np.random.Generator) -> np.ndarray:
    """[6, 40_000], more than ``_CANDIDATES`` blocks: a nucleus of few tokens, of many, with ties at its border."""
    logits = rng.normal(size=(6, 40_000))
    if kind == "few":
        logits[:, rng.permutation(40_000)[:40]] += np.linspace(16, 5, 40)
    if kind == "ties":
        logits[:, rng.permutation(40_000)[:300]] += 9
        logits = np.round(logits)
    return logits.astype(np.float32)


@pytest.mark.parametrize("products", ["xla", pytest.param("native", marks=needs_compiler)])
@pytest.mark.parametrize("settings", [(0, 0.95), (0, 0.5), (1, 1.0), (40, 1.0), (40, 0.9), (5_000, 0.9)])
@pytest.mark.parametrize("kind", ["few", "many", "ties"])
def test_candidates_draw_what_the_whole_vocabulary_draws(kind, settings, products):
    """The candidates are a short cut: where a row says they are complete, they hold exactly what is kept."""
    top_k, top_p = settings
    rng = np.random.default_rng(5)
    logits = jnp.asarray(hard_logits(kind, rng))
    temperature = jnp.full((6, 1), 0.8)
    k, p = jnp.full(6, top_k), jnp.full(6, top_p)
    uniform = jnp.asarray(rng.random(6), jnp.float32)
    token, complete = draw_candidate(logits, temperature, k, p, uniform, products)
    whole = draw_whole(keep_top(logits / temperature, k, p), uniform)
    np.testing.assert_array_equal(np.asarray(token)[complete], np.asarray(whole)[complete])
    kept = np.isfinite(keep_top(logits / temperature, k, p)).sum(axis=-1)
    most = sampling._CANDIDATES
    assert (np.asarray(complete) == ((kept < most) & (top_k <= most))).all()


@needs_compiler
@pytest.mark.parametrize("kind", ["few", "many", "ties", "equal", "infinite"])
@pytest.mark.parametrize("vocab", [40_000, 39_937, 300, 100])
def test_our_kernel_finds_the_candidates_that_xla_finds(kind, vocab):
    logits = hard_logits(kind, np.random.default_rng(5))[:, :vocab]
    if kind == "equal":
        logits[:] = 1.5
    if kind == "infinite":
        logits[:, ::3] = -np.inf
    divisor = jnp.full((6, 1), 0.7)
    count = min(vocab, sampling._CANDIDATES)
    values, ids, weight = largest(jnp.asarray(logits), divisor, count)
    expected, theirs = jax.lax.top_k(jnp.asarray(logits), count)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(ids, theirs)
    exact = np.exp((logits.astype(np.float64) - logits.max(-1, keepdims=True)) / 0.7).sum(-1, keepdims=True)
    np.testing.assert_allclose(weight, exact, rtol=1e-6)


@needs_compiler
def test_what_is_no_number_is_found_in_its_row_alone():
    logits = np.random.default_rng(0).normal(size=(3, 20_000)).astype(np.float32)
    logits[1, 77] = np.nan
    values, _, weight = largest(jnp.asarray(logits), jnp.ones((3, 1)), 128)
    assert np.isnan(np.asarray(weight))[:, 0].tolist() == [False, True, False]
    assert np.isfinite(np.asarray(values)[[0, 2]]).all()


def test_greedy_takes_the_first_of_equals_wherever_it_stands():
    """Also in the last block, which is shorter than the others."""
    for places in ([0, 999], [300, 301], [999], [895, 896], [127, 128]):
        logits = jnp.zeros((1, VOCAB)).at[0, jnp.asarray(places)].set(1.0)
        assert sampling._most_likely(logits)[0] == places[0]
