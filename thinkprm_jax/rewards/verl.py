"""A reward for verl: a custom reward function, and a reward manager for rewards of steps.

verl loads either from a file of the user's, in each of its workers, by path and name::

    # my_reward.py
    from thinkprm_jax import ThinkPRM
    from thinkprm_jax.rewards import verl

    compute_score = verl.score_function(ThinkPRM("mini").reward(on_error=0.0))
    StepRewardManager = verl.reward_manager(lambda: ThinkPRM("mini").reward(on_error=0.0))

    # reward.custom_reward_function.path=my_reward.py reward.custom_reward_function.name=compute_score
    # or reward.reward_manager.source=importlib reward.reward_manager.module.path=my_reward.py
    #    reward.reward_manager.name=StepRewardManager
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.rewards.reward import Reward

_PROBLEMS = ("problem", "question")  # of a row's extra_info


def score_function(reward: Reward) -> Callable[..., dict[str, Any]]:
    """verl's ``compute_score(data_source, solution_str, ground_truth, extra_info)``, for any number of threads.

    The problem is ``extra_info["problem"]``, or ``"question"``. The result has verl's ``score``, and ``judged``.

    Raises:
      UserError: the reward has no number for what cannot be judged; and, of the function, a row has no problem.
    """
    on_error = _number(reward)

    def compute_score(
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> dict[str, Any]:
        [(_, verdict)] = reward.judge([_problem(extra_info)], [solution_str])
        return {"score": on_error if verdict is None else reward.value(verdict), "judged": verdict is not None}

    return compute_score


def reward_manager(make_reward: Callable[[], Reward]) -> type:
    """A class for verl's reward loop that rewards each step at its last token.

    A completion that cannot be judged gets ``on_error`` at its last token.

    Args:
      make_reward: called once in each process that rewards.
    Raises:
      ImportError: verl is not installed.
    """
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

    reward_here = functools.lru_cache(maxsize=1)(make_reward)

    class StepRewardManager(RewardManagerBase):
        """Of verl: see :func:`reward_manager`."""

        def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **_: Any) -> None:
            super().__init__(config, tokenizer, compute_score)
            self.reward = reward_here()
            self.on_error = _number(self.reward)

        async def run_single(self, data: Any) -> dict[str, Any]:
            """The rewards of the tokens of one completion, as ``reward_score``."""
            item = data[-1:][0]
            responses = item.batch["responses"]
            count = int(item.batch["attention_mask"][-responses.shape[-1] :].sum())
            ids = [int(token) for token in responses[:count]]
            problem = _problem(item.non_tensor_batch.get("extra_info"))
            return await self.loop.run_in_executor(None, self._score, problem, ids)

        def _score(self, problem: str, ids: list[int]) -> dict[str, Any]:
            decode = functools.partial(self.tokenizer.decode, skip_special_tokens=True)
            [found] = self.reward.dense([problem], [decode(ids)], [ids], decode)
            if found is None:
                rewards = [*[0.0] * (len(ids) - 1), self.on_error][: len(ids)]
            else:
                rewards = found.at_ends(len(ids))
            whole = self.on_error if found is None else found.score
            return {"reward_score": rewards, "reward_extra_info": {"judged": found is not None, "score": whole}}

        @classmethod
        def assemble_rm_scores(cls, data: Any, scores: Sequence[Sequence[float]]) -> Any:
            """float32 [B, T] of the responses."""
            table = data.batch["responses"].float().zero_()
            for row, rewards in zip(table, scores, strict=True):
                row[: len(rewards)] = row.new_tensor(list(rewards))
            return table

    return StepRewardManager


def _problem(extra_info: Mapping[str, Any] | None) -> str:
    for name in _PROBLEMS:
        if isinstance(value := (extra_info or {}).get(name), str):
            return value
    raise UserError(f"a row has no problem: extra_info wants a text under one of {', '.join(_PROBLEMS)}")


def _number(reward: Reward) -> float:
    if reward.on_error is None:
        raise UserError("on_error is None: verl wants a number for what cannot be judged")
    return float(reward.on_error)
