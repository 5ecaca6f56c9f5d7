"""What the benchmarks compute themselves; their figures come from running them."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    """Loads a program of benchmarks/ as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(ROOT / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


MODULE = """
%draw (x: f32[4]) -> f32[4] {
  %a = f32[4] fusion(%x), calls=%inner, backend_config={"estimated_cycles":"30"}
}
%skip (x: f32[4]) -> f32[4] {
  ROOT %b = f32[4] copy(%x), backend_config={"estimated_cycles":"2"}
}
%bit (x: f32[4]) -> f32[4] {
  ROOT %c = f32[4] copy(%x), backend_config={"estimated_cycles":"5"}
}
%step (x: f32[4]) -> f32[4] {
  %d = f32[4] fusion(%x), calls=%inner, backend_config={"estimated_cycles":"100"}
  %e = f32[4] conditional(%p, %d, %d), true_computation=%draw, false_computation=%skip
  ROOT %f = f32[4] while(%e), condition=%never, body=%bit, backend_config={"known_trip_count":{"n":"32"}}
}
%counts (x: f32[4]) -> f32[4] {
  %i = s32[]{:T(128)} constant(28)
  %j = s32[] get-tuple-element(%x), index=0
  ROOT %k = pred[] compare(%j, %i), direction=LT
}
ENTRY %main (x: f32[4]) -> f32[4] {
  %g = f32[4] while(%x), condition=%wanted, body=%step
  %l = f32[4] while(%x), condition=%counts, body=%bit
  ROOT %h = f32[4] copy(%g), backend_config={"estimated_cycles":"7"}
}
"""


def test_estimated_cycles_follow_loops_and_the_chosen_branch(benchmark) -> None:
    program = benchmark("sampling").HloProgram(MODULE)
    body, entry = program.loop()
    assert (body, entry) == ("step", "main")
    assert program.cycles(body, min) == 100 + 2 + 32 * 5
    assert program.cycles(body, max) == 100 + 30 + 32 * 5
    assert program.cycles(entry, min, without=body) == 28 * 5 + 7


def test_a_peer_that_is_not_there_is_shown(benchmark, tmp_path: Path) -> None:
    peers = benchmark("peers")
    options = SimpleNamespace(model=tmp_path, threads=1, repeats=1, python=sys.executable)
    command = peers.command_of("llama.cpp", "float32", tmp_path, options)
    with open(tmp_path / "log", "w") as log:
        program = peers.Program("llama.cpp", "float32", command, 1, log)
        program.close()
    assert "GGUF" in program.absent
    table = peers.table([program], [peers.WORK[0]], options)
    assert f"| llama.cpp | float32 | absent: {program.absent} |" in table


def test_a_decode_step_is_the_difference_of_two_runs(benchmark) -> None:
    peers = benchmark("peers")
    program = object.__new__(peers.Program)
    program.prefilled = program.given = 0
    program.absent, program.times = "", {}
    answers = iter([{"prefilled": 3, "wall": 1.0, "cpu": 2.0}, {"prefilled": 3, "wall": 5.0, "cpu": 10.0}])
    program.ask = lambda **order: next(answers)
    program.measure(peers.Work("decode", 1, 3, 5), [[[1, 2, 3]], [[4, 5, 6]]])
    assert program.times == {"decode": [(1.0, 2.0)]}
    assert (program.given, program.prefilled) == (6, 6)


def test_figures_of_a_part_replace_those_of_its_earlier_run(benchmark, tmp_path: Path) -> None:
    common = benchmark("device_common")
    for part, value in (("decode", 1), ("train", 2), ("decode", 3)):
        common.Figures(tmp_path, part).add("a step", value)
    rows = json.loads((tmp_path / "device.json").read_text())
    assert [(row["part"], row["value"]) for row in rows] == [("train", 2), ("decode", 3)]


def test_a_stop_text_that_begins_inside_a_token_breaks_it(benchmark) -> None:
    """As the sampler does: what stands before the stop text stays, as plain text."""
    chains: ModuleType = benchmark("verdict_chains")
    from thinkprm_jax.checkpoint.huggingface import BUNDLED
    from thinkprm_jax.sampler.request import Think
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(BUNDLED["mini"])

    def script():
        return (yield Think(8, stop_texts=("Step 2",)))

    chain = chains.Chain([1], script(), seed=0)
    ids = tokenizer.encode_plain("Step 1 is right. Step 2: no")
    chain.think(ids, np.zeros((len(ids), 0)), tokenizer)
    assert chain.verdict.text == "Step 1 is right. "
    assert tokenizer.decode(chain.context[1:]) == "Step 1 is right. "
    assert (chain.verdict.finish, chain.verdict.stop) == ("stop_text", "Step 2")
