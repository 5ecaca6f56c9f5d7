"""A reward for SkyRL: an environment of skyrl-gym whose step judges a solution.

::

    import skyrl_gym
    from thinkprm_jax import ThinkPRM
    from thinkprm_jax.rewards import skyrl

    VerifiedSolution = skyrl.environment(lambda: ThinkPRM("mini").reward(on_error=0.0))  # in a module of yours
    skyrl_gym.register(id="thinkprm", entry_point="my_module:VerifiedSolution")
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.rewards.reward import Reward
from thinkprm_jax.rewards.texts import problem_in


def environment(make_reward: Callable[[], Reward]) -> type:
    """A class of skyrl-gym's environments. The problem is ``problem`` of a row's extras, or what the user said
    last in its prompt; the policy's one action is a solution, and its step ends the episode. ``metadata`` has the
    scores of the steps, and where they stand in the action, in characters.

    Args:
      make_reward: called once in each process.
    Raises:
      ImportError: skyrl-gym is not installed.
    """
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput

    reward_here = functools.lru_cache(maxsize=1)(make_reward)

    class VerifiedSolution(BaseTextEnv):
        """Of skyrl-gym: see :func:`environment`."""

        def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
            super().__init__()
            self.reward = reward_here()
            if self.reward.on_error is None:
                raise UserError("on_error is None: SkyRL wants a number for what cannot be judged")
            self.problem: Any = (extras or {}).get(self.reward.problem)
            self.metrics: dict[str, float] = {}

        def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
            """Takes the problem from the prompt, where the row has no other."""
            if self.problem is None:
                self.problem = problem_in(prompt)
            return prompt, {}

        def step(self, action: str) -> Any:
            """Judges the solution; always the last one."""
            if self.problem is None:
                raise UserError("an episode has no problem: its extras have none, and init() was not called")
            self.turns += 1
            [(offset, verdict)] = self.reward.judge([self.problem], [action])
            self.metrics = {"judged": float(verdict is not None)}
            metadata: dict[str, Any] = {"judged": verdict is not None}
            if verdict is not None:
                metadata["step_scores"] = list(verdict.step_scores)
                metadata["step_spans"] = [
                    (start + offset, end + offset) for start, end in verdict.step_spans or ()
                ]
            value = self.reward.on_error if verdict is None else self.reward.value(verdict)
            return BaseTextEnvStepOutput(observations=[], reward=value, done=True, metadata=metadata)

        def get_metrics(self) -> dict[str, float]:
            """Whether the solution was judged."""
            return self.metrics

    return VerifiedSolution
