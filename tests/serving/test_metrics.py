"""Figures in Prometheus' text format."""

from __future__ import annotations

from thinkprm_jax.serving.metrics import Counter, CounterRate, Gauge, Histogram, exposition


def test_the_text_format() -> None:
    counter, histogram = Counter("a_total", "A."), Histogram("b_seconds", "B.", (0.5, 2))
    counter.add(path='/"x"\n', status="200")
    counter.add(2, path="/y", status="429")
    for seconds in (0.1, 0.5, 1, 9):
        histogram.add(seconds)
    assert exposition([counter, histogram, Gauge("c", "C.", lambda: 7)]).splitlines() == [
        "# HELP a_total A.",
        "# TYPE a_total counter",
        'a_total{path="/\\"x\\"\\n",status="200"} 1',
        'a_total{path="/y",status="429"} 2',
        "# HELP b_seconds B.",
        "# TYPE b_seconds histogram",
        'b_seconds_bucket{le="0.5"} 2',
        'b_seconds_bucket{le="2"} 3',
        'b_seconds_bucket{le="+Inf"} 4',
        "b_seconds_sum 10.6",
        "b_seconds_count 4",
        "# HELP c C.",
        "# TYPE c gauge",
        "c 7",
    ]
    assert (counter.total(), counter.total(status="429")) == (3, 2)


def test_a_rate_is_of_the_last_seconds() -> None:
    now = {"time": 0.0, "count": 0}
    rate = CounterRate(lambda: now["count"], lambda: now["time"])
    for second in range(1, 60):
        now.update(time=float(second), count=100 if second < 40 else 100 + 5 * (second - 39))
        found = rate()
    assert found == 5
