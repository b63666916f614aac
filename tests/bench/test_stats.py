"""Medians, percentiles and the promises judged from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.stats import Measurement, medians, percentile, ratios, spread
from bench.targets import Key, targets


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [([5.0], 0.99, 5.0), ([1, 2, 3, 4], 0.5, 2.5), ([4, 1, 3, 2], 1.0, 4), ([0, 10], 0.99, 9.9), ([3, 1], 0.0, 1)],
)
def test_percentile_interpolates_between_ranks(values: list[float], q: float, expected: float) -> None:
    assert percentile(values, q) == pytest.approx(expected)


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def test_medians_are_taken_field_by_field(run: Measurement) -> None:
    runs = [replace(run, msgs_per_s=rate, p99_ms=p99) for rate, p99 in [(900, 30), (1000, 10), (5000, 20)]]
    merged = medians(runs)
    assert (merged.msgs_per_s, merged.p99_ms) == (1000, 20)


def test_a_single_loss_is_not_hidden_by_the_median(run: Measurement) -> None:
    assert medians([run, replace(run, lost=7), run]).lost == 7


def test_spread_is_half_the_range_over_the_median() -> None:
    assert spread([90, 100, 130]) == pytest.approx(0.2)
    assert spread([100]) == 0


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([10, 50, 12], [20, 100, 48]) == [0.5, 0.5, 0.25]
    assert ratios([10, 50], [20]) == [0.5]


def test_every_promise_of_plain_is_judged_when_all_modes_ran(run: Measurement) -> None:
    slow = [replace(run, msgs_per_s=100.0)]
    found = targets(
        {
            Key("plain", "untraced"): [replace(run, msgs_per_s=1600.0, cpu_us_per_msg=36.0)],
            Key("plain", "sampled_10"): [run],
            Key("plain", "traced"): [run],
            Key("plain", "baseline_untraced"): slow,
            Key("plain", "baseline_traced"): slow,
        }
    )
    assert [(round(t.value, 3), t.met) for t in found] == [
        (10.0, True),  # traced against the baseline traced: at least 10
        (16.0, True),  # untraced against the baseline untraced: at least 15
        (0.625, False),  # kept when everything is traced: at least 0.85
        (40.0, True),
        (4.0, False),  # what tracing adds: at most 3
        (70.0, False),  # idle: at most 60
        (0.0, True),
    ]


def test_shapes_are_judged_against_plain_and_against_the_other_commit(run: Measurement) -> None:
    runs = {
        Key("plain", "traced"): [run],
        Key("readme", "traced"): [replace(run, cpu_us_per_msg=50.0)],
        Key("plain", "traced", "abc1234"): [replace(run, cpu_us_per_msg=80.0)],
        Key("readme", "traced", "abc1234"): [replace(run, cpu_us_per_msg=100.0, lost=5, idle_rss_mib=500.0)],
    }
    found = {t.about: (t.value, t.met) for t in targets(runs)}
    assert found["CPU per message, traced, readme over plain"] == (1.25, False)
    assert found["CPU per message, plain traced, over abc1234"] == (0.5, True)
    assert found["CPU per message, readme traced, over abc1234"] == (0.5, False)
    assert found["resident when idle"] == (70.0, False)
    assert found["messages acknowledged and lost"] == (0, True)


def test_a_promise_whose_modes_did_not_run_is_left_out(run: Measurement) -> None:
    found = targets({Key("plain", "traced"): [replace(run, lost=1)]})
    assert [t.met for t in found] == [True, False, False]
