"""Who waits for whom: seconds of the device, and seconds in which it waits for the host."""

from __future__ import annotations

import pytest

from thinkprm_jax.sampler import Sampler, scheduler
from thinkprm_jax.sampler.request import SamplerStats
from thinkprm_jax.sampler.scheduler import DeviceClock


def test_each_second_belongs_to_one_of_them(monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr(scheduler.time, "monotonic", lambda: now)
    stats = SamplerStats()
    clock = DeviceClock(stats)
    for seconds, what in [
        (5, clock.rest),  # nothing to do
        (7, clock.wait),  # a request has come
        (1, clock.wait),
        (2, clock.begin),  # 3 of the host
        (10, clock.begin),  # its decode call, behind its prefill
        (20, clock.ready),  # 30 of the device
        (4, clock.begin),  # 4 of the host
        (10, clock.ready),  # 10 of the device
        (2, clock.rest),  # 2 of the host; no job is left
        (100, clock.rest),
    ]:
        now += seconds
        what()
    assert (stats.host_seconds, stats.device_seconds) == (9, 40)
    assert stats.idle_share == pytest.approx(9 / 49)
    assert SamplerStats().idle_share == 0


def test_a_sampler_counts_them_while_it_works(tiny_model, mini_tokenizer) -> None:
    sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=64, chunk=4)
    sampler.generate(["2 + 3 = "], max_new_tokens=12)
    stats = sampler.stats
    assert stats.device_seconds > stats.host_seconds > 0  # what is compiled counts as the device's
    before = stats.host_seconds
    assert not sampler.step()
    assert sampler.stats.host_seconds == before
