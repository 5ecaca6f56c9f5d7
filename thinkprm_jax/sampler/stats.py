"""What the sampler counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass
class SamplerStats:
    """Counters since the sampler was made.

    A token "was processed before" where it stood at the same place behind the same tokens, in a prompt or in a
    context that finished. The sampler remembers the last half a million of such tokens; what it has forgotten
    counts as new.
    """

    decode_steps: int = 0
    slot_steps: int = 0  # decode steps x slots
    busy_slot_steps: int = 0  # of those, the ones that fed a token
    sampled_tokens: int = 0
    discarded_tokens: int = 0  # of those, the ones behind a stop text that was seen only after the chunk
    fed_samples: int = 0  # of the sampled, those that went through the layers: not the last of a phase that stops
    forced_tokens: int = 0  # a prompt's last token, which the decode loop takes, and what scripts force
    refed_tokens: int = 0  # the same, but processed before: once for each further fork of a prompt, and a rewind
    prefilled_tokens: int = 0  # of prompts without their last token, for the first time
    reprefilled_tokens: int = 0  # the same, but processed before: lost, or too short to be worth a copy
    shared_tokens: int = 0  # of prompts, kept in the row or copied from another row or the shelf
    parked_tokens: int = 0  # that got a place on the shelf
    evicted_tokens: int = 0  # that lost it to others
    finished: int = 0

    def plus(self, others: Iterable[SamplerStats]) -> SamplerStats:
        every = (self, *others)
        return SamplerStats(
            **{field.name: sum(getattr(one, field.name) for one in every) for field in dataclasses.fields(self)}
        )

    @property
    def occupancy(self) -> float:
        """Share of slot steps that fed a token."""
        return self.busy_slot_steps / max(self.slot_steps, 1)

    @property
    def processed_tokens(self) -> int:
        """Tokens that went through the layers."""
        given = self.prefilled_tokens + self.reprefilled_tokens + self.forced_tokens + self.refed_tokens
        return self.fed_samples + given

    @property
    def first_time_tokens(self) -> int:
        """Tokens generated, forced or prefilled for the first time: the work there was to do. What was sampled and
        thrown away is none."""
        return self.sampled_tokens - self.discarded_tokens + self.forced_tokens + self.prefilled_tokens
