"""A verifier as an argument of a function: its weights and its script."""

from __future__ import annotations

import dataclasses
import functools

import jax
from flax import nnx

from thinkprm_jax.errors import UserError
from thinkprm_jax.functional.script import DeviceScript, make_script
from thinkprm_jax.model.decoder import Decoder, use_products
from thinkprm_jax.verifier.thinkprm import ThinkPRM

MAX_STEPS = 16


@functools.partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["graph", "script"])
@dataclasses.dataclass(frozen=True)
class VerifierParams:
    """A verifier as a pytree: its leaves are the weights, all else is static.

    So it is an ordinary argument of `jax.jit`, `jax.grad`, `jax.vmap` and `jax.shard_map`, and optax updates it.
    New weights of the same architecture, such as those of a training step, take the place of the old ones with
    ``dataclasses.replace(params, weights=nnx.state(model))``; nothing is compiled again.

    Example:

        import jax

        params = verifier_params(ThinkPRM("mini"))
        print(sum(leaf.size for leaf in jax.tree.leaves(params)))  # parameters

    Attributes:
      weights: an NNX state, as ``nnx.state(model)`` gives it.
      graph: the architecture, an NNX graph definition.
      script: what is forced, and how a chain is read.
    """

    weights: nnx.State
    graph: nnx.GraphDef[Decoder]
    script: DeviceScript

    def model(self) -> Decoder:
        """The decoder with these weights; its products are XLA's, which have derivatives and batches."""
        model = nnx.merge(self.graph, self.weights)
        use_products(model, "xla")
        return model


def verifier_params(prm: ThinkPRM, *, max_steps: int = MAX_STEPS) -> VerifierParams:
    """What :func:`score_tokens` and :func:`verify_tokens` compute with: the weights of a verifier as it is, and of
    its settings the rounds and their phrases, the question and its answers, temperature and top_p.

    Example:

        params = verifier_params(ThinkPRM("mini", temperature=0.0, n_thinking_rounds=2, multiround_verifier=True))

    Args:
      prm: a verifier on one device (its weights are not copied).
      max_steps: S, the most steps that a solution may have.
    Raises:
      UserError: what the device cannot do: a verifier on a mesh of several devices (shard the arrays yourself), a
        word of a verdict that is several tokens, ``stop_at_unknown_step``.
    """
    graph, weights = prm.sampler.split_model()
    model = nnx.merge(graph, weights)
    if model.execution.mesh is not None and model.execution.mesh.size > 1:
        raise UserError("this verifier is on a mesh of several devices: load it on one, and shard its params")
    script = make_script(prm.tokenizer, prm.settings, prm.end_ids, model.config.vocab_size, max_steps)
    return VerifierParams(weights, graph, script)
