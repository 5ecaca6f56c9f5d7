"""The points at which formulas are compared."""

from __future__ import annotations

from fractions import Fraction

from thinkprm_jax.grading.points import POINTS, differences, drawn, points_of, values_of
from thinkprm_jax.grading.syntax import parse_answer

STEPPED = points_of(parse_answer(r"\lfloor x\rfloor"))


def test_the_larger_of_two_names_is_the_smaller_at_another_point() -> None:
    for first, second in (("x", "y"), ("a", "b"), ("m", "n")):
        assert (drawn(first, 0) < drawn(second, 0)) is not (drawn(first, 1) < drawn(second, 1))


def test_there_are_negative_and_large_values() -> None:
    assert all(-14 < drawn(name, 2) < -6 and 6 < drawn(name, 3) < 14 for name in "abcxyz")


def test_a_formula_without_steps_has_few_points() -> None:
    assert len(points_of(parse_answer("x+1"))) == POINTS
    assert len(points_of(parse_answer(r"x+\lfloor 2.5\rfloor"))) == POINTS


def test_every_name_takes_each_small_whole_number_once() -> None:
    assert all(sorted(value_of(name) for value_of in STEPPED[:64]) == list(range(1, 65)) for name in "nxyk")


def test_a_name_that_counts_is_never_broken() -> None:
    assert all(value_of("n").denominator == 1 for value_of in STEPPED)
    assert any(value_of("x").denominator > 1 for value_of in STEPPED)


def test_a_point_without_a_value_is_passed_over() -> None:
    values = values_of(parse_answer(r"e^{e^{e^x}}"), points_of(parse_answer("x")))
    assert None in values
    assert differences(values, values) == [Fraction(0) if value is not None else None for value in values]
