#!/usr/bin/env bash
# google-tunix 0.1.7: the KL penalty of GRPO, as it is by default, does not pull towards the reference. kl_loss_mode is
# "kl", whose value log p - log p_ref estimates the divergence, but as a term of the loss its gradient is that of log p
# alone: the reference has no part in it, whatever beta is, and on the policy's own samples its mean is 0. The logged
# `kl` looks right; the paper's GRPO (and TRL's) has the estimator that Tunix calls "low_var_kl". Instead:
# GRPOConfig(kl_loss_mode="low_var_kl").
# Shown with a constant reward, so that the penalty is the whole loss: what is learnt beside two references.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check google-tunix==0.1.7 jax==0.10.2 flax==0.12.8

cat > "$work/run.py" << 'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.models.qwen2.model import ModelConfig, Qwen2
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig


class Letters:  # ids: padding 0, begin 1, end 2, then a to z
    encode = staticmethod(lambda text, **_: [ord(letter) - 94 for letter in text])
    decode = staticmethod(lambda ids, **_: "".join(chr(id + 94) if id > 2 else "?" for id in ids))
    pad_id, bos_id, eos_id = (staticmethod(lambda id=id: id) for id in range(3))


config = ModelConfig(num_layers=1, vocab_size=29, embed_dim=16, hidden_dim=32, num_heads=2, head_dim=8,
                     num_kv_heads=1, rope_theta=10_000, norm_eps=1e-6)
mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def model(seed):
    with jax.set_mesh(mesh):
        return Qwen2(config, rngs=nnx.Rngs(seed))


def trained(mode, seed):
    """The weights after 8 steps of nothing but the penalty, beside the reference of this seed."""
    rollout = RolloutConfig(max_tokens_to_generate=16, max_prompt_length=8, kv_cache_size=32, temperature=1.0)
    training = RLTrainingConfig(actor_optimizer=optax.sgd(0.1), eval_every_n_steps=99, max_steps=8)
    policy = model(0)
    cluster = RLCluster(actor=policy, reference=model(seed), tokenizer=Letters(), cluster_config=ClusterConfig(
        role_to_mesh=dict.fromkeys((Role.ACTOR, Role.ROLLOUT, Role.REFERENCE), mesh), training_config=training,
        rollout_config=rollout))
    grpo = GRPOConfig(num_generations=8, beta=1.0, **mode)
    learner = GRPOLearner(cluster, grpo, lambda prompts, completions, **_: [1.0] * len(prompts))
    learner.train([{"prompts": np.array(["abc"])}] * 8)
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(cluster.actor_trainer.model, nnx.Param))]


start = [np.asarray(x) for x in jax.tree.leaves(nnx.state(model(0), nnx.Param))]
for name, mode in [("as it is", {}), ("low_var_kl", {"kl_loss_mode": "low_var_kl"})]:
    one, two = trained(mode, 1), trained(mode, 2)
    moved = max(np.abs(x - y).max() for x, y in zip(one, start)) > 1e-4
    apart = max(np.abs(x - y).max() for x, y in zip(one, two)) > 1e-4
    print(f"{name}: the weights move: {moved}; they depend on the reference: {apart}")
PYTHON
JAX_PLATFORMS=cpu TQDM_DISABLE=1 "$work/env/bin/python" "$work/run.py" 2> "$work/log" | tee "$work/seen" ||
    { tail -n 5 "$work/log"; exit 1; }

diff - "$work/seen" << 'SEEN'
as it is: the weights move: True; they depend on the reference: False
low_var_kl: the weights move: True; they depend on the reference: True
SEEN
