"""Verifiers as rewards of reinforcement learning: ``prm.reward(...)`` makes one, and each trainer takes it.

- TRL: the reward itself, ``GRPOTrainer(reward_funcs=prm.reward(), ...)``.
- Tunix: the same, ``GRPOLearner(reward_fns=[prm.reward(on_error=0.0)], ...)``.
- verl: :mod:`.verl`, a custom reward function and a reward manager.
- SkyRL: :mod:`.skyrl`, an environment.
"""

from __future__ import annotations

from thinkprm_jax.rewards.reward import Reward, RewardCounts, StepRewards
from thinkprm_jax.rewards.tokens import token_spans

__all__ = ["Reward", "RewardCounts", "StepRewards", "token_spans"]
