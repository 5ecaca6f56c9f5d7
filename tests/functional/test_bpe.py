"""Verdicts inside jit with tokens of R1-Distill-Qwen, which run over the borders of a chain's parts.

The bundled tokenizer writes a digit or a word a token. Qwen's has tokens such as ` \\`, `}\\n\\n` and `.\\n`, so
that what is cut, forced and read begins and ends inside tokens. A decoder of two layers learns a few chains by
heart: then it writes whole chains in that tokenizer, with real verdicts.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from support import r1_tokenizer, tiny_model
from thinkprm_jax import ThinkPRM, token_chains, token_prompts, verifier_params, verify_tokens
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.sampler import Sampler
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

STEPS, STEPS_OF_TRAINING = 3, 200
VERIFY = jax.jit(verify_tokens, static_argnames=("max_tokens", "rows"))
# Problem, solution, chain, answer. The second chain is silent about its last step, the third finds the second step
# wrong, the fourth has a verdict of a form that only the host reads.
ITEMS = [
    (
        "A café sells 1,250 espressos at €2.40 each. What does it take in?",
        ["Revenue is $1250 \\times 2.40$.", "So it takes in \\boxed{3000} euros."],
        (
            "Step 1: The price of one is €2.40 and 1,250 are sold.\n\nThe step is \\boxed{correct}\n\nStep 2: "
            "$1250 \\cdot 2.4 = 3000$, as said.\n\nThe step is \\boxed{correct}\n"
        ),
        " Yes",
    ),
    (
        "Solve $x^2 - 5x + 6 = 0$.",
        ["Factor: $(x-2)(x-3) = 0$.", "Hence $x = 2$ or $x = 3$.", "Both are real."],
        (
            "Let me check.\n\nStep 1: $(x-2)(x-3) = x^2 - 5x + 6$.\n\nThe step is \\boxed{correct}\n\nStep 2: "
            "Each factor may vanish:   so two roots. The step is \\boxed{correct}"
        ),
        " Yes",
    ),
    (
        "If f(n) = 2n + 1, find f(f(3)).",
        ["f(3) = 7.", "f(7) = 16.", "The answer is 16."],
        (
            "Step 1: 2·3 + 1 = 7. The step is \\boxed{correct}\n\nStep 2: 2·7 + 1 = 15, not 16. The step is "
            "\\boxed{incorrect}\n\n"
        ),
        " No",
    ),
    (
        "日本 has 47 prefectures; 8 are on Kyūshū. How many are not?",
        ["47 − 8 = 39."],
        "Step 1: 47 − 8 = 39 ✓.\n\nThe step is \\boxed{correct}.\n\n",
        " Yes",
    ),
]
PROBLEMS, SOLUTIONS, CHAINS, ANSWERS = map(list, zip(*ITEMS, strict=True))


def learnt_by_heart(tokenizer: Tokenizer) -> Decoder:
    """A decoder that writes the chains behind their prompts; it learns with the tokens alone that occur there."""
    vacant = tiny_model.make_decoder(tokenizer, layers=1)
    prm = ThinkPRM(sampler=Sampler(vacant, tokenizer, slots=2, max_length=512))
    ids, spans = token_chains(prm, PROBLEMS, SOLUTIONS, CHAINS, max_steps=STEPS)
    for row, (place, answer) in enumerate(zip(spans.answer, ANSWERS, strict=True)):
        ids[row, place] = tokenizer.token_id(answer)
    known, few = np.unique(ids, return_inverse=True)
    few = jnp.asarray(few.reshape(ids.shape))
    places = np.arange(ids.shape[1])
    prompts = token_prompts(prm, PROBLEMS, SOLUTIONS, max_steps=STEPS).lengths
    learnt = (places >= prompts[:, None]) & (places <= np.asarray(spans.answer)[:, None])

    config = replace(
        tiny_model.make_config(tokenizer), hidden_size=64, intermediate_size=128, initializer_range=0.1
    )
    small = Decoder(replace(config, vocab_size=len(known)), rngs=nnx.Rngs(0))
    graph, weights = nnx.split(small)
    adam = optax.adam(4e-3)

    def loss(weights: nnx.State) -> jax.Array:
        model = nnx.merge(graph, weights)
        logits = model.unembed(model.hidden(few[:, :-1]))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, few[:, 1:])
        return (losses * learnt[:, 1:]).sum() / learnt.sum()

    @jax.jit
    def learn(weights: nnx.State) -> tuple[nnx.State, jax.Array]:
        def step(carry: tuple, _: None) -> tuple[tuple, jax.Array]:
            weights, state = carry
            value, gradient = jax.value_and_grad(loss)(weights)
            updates, state = adam.update(gradient, state)
            return (optax.apply_updates(weights, updates), state), value

        (weights, _), values = jax.lax.scan(step, (weights, adam.init(weights)), length=STEPS_OF_TRAINING)
        return weights, values[-1]

    weights, value = learn(weights)
    assert value < 0.02
    nnx.update(small, weights)
    large = Decoder(config, rngs=nnx.Rngs(0))
    table = jnp.zeros_like(large.embed.embedding[...]).at[known].set(small.embed.embedding[...])
    nnx.update(large, nnx.state(small) | {"embed": {"embedding": nnx.Param(table)}})
    return large


@pytest.mark.slow
def test_verdicts_are_those_of_the_host(tmp_path):
    """Chains of up to 80 tokens and what is forced behind them: three sizes of the columns (48, 96, 192)."""
    ranks = r1_tokenizer.first_ranks(4096, ("correct", "incorrect", " Yes", " No", "boxed"))
    tokenizer = Tokenizer.load(r1_tokenizer.build(tmp_path, ranks))
    sampler = Sampler(learnt_by_heart(tokenizer), tokenizer, slots=4, max_length=512)
    prm = ThinkPRM(sampler=sampler, temperature=0.0, max_gen_tokens=110)
    params = verifier_params(prm, max_steps=STEPS)
    prompts = token_prompts(prm, PROBLEMS, SOLUTIONS, max_steps=STEPS)
    found = jax.tree.map(np.asarray, VERIFY(params, prompts, max_tokens=110))
    host = prm.predict_correctness_batch(PROBLEMS, SOLUTIONS)
    # It is no noise that is compared: they are the chains that were learnt, with their verdicts.
    assert all(result["outputs"][0].startswith(chain.rstrip()) for result, chain in zip(host, CHAINS, strict=True))
    assert [result["step_labels"][0] for result in host] == [[1, 1], [1, 1, 1], [1, 0, 0], [1]]
    assert host[1]["step_forced"][0] == [False, False, True]
    assert [result["prefix_score"] > 0.5 for result in host] == [True, True, False, True]

    assert found.covered.tolist() == [True, True, True, False]
    for row, result in enumerate(host):
        steps = len(SOLUTIONS[row])
        chain = found.ids[row, prompts.lengths[row] : found.lengths[row]]
        assert tokenizer.decode(chain) == result["outputs"][0]
        assert found.output_tokens[row] == result["output_tokens"][0]
        assert found.step_labels[row, :steps].tolist() == result["step_labels"][0]
        assert found.step_forced[row, :steps].tolist() == result["step_forced"][0]
        np.testing.assert_allclose(found.prefix_score[row], result["prefix_score"], atol=1e-5)
        if found.covered[row]:
            np.testing.assert_allclose(found.step_scores[row, :steps], result["step_scores"][0], atol=1e-5)
