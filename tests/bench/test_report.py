"""The tables and, above all, the JSON line that others parse."""

from __future__ import annotations

import io
import json
from dataclasses import replace

from rich.console import Console

from bench.modes import MODES
from bench.report import KEYS, last_line, print_report, summary
from bench.stats import Measurement
from bench.targets import Key, Runs


def _runs(run: Measurement) -> dict[Key, list[Measurement]]:
    rates = [run, replace(run, msgs_per_s=1100.0), replace(run, msgs_per_s=900.0)]
    return {Key("plain", mode.name): rates for mode in MODES}


def _compared(run: Measurement) -> dict[Key, list[Measurement]]:
    """``readme`` traced, twice as cheap as in the other commit."""
    return {
        Key("readme", "traced"): [replace(run, cpu_us_per_msg=cpu) for cpu in (20.0, 30.0, 10.0)],
        Key("readme", "traced", "abc1234"): [replace(run, cpu_us_per_msg=cpu) for cpu in (40.0, 60.0, 90.0)],
    }


def test_the_json_line_has_every_promised_key_for_every_mode(run: Measurement) -> None:
    line = last_line(summary(_runs(run), {"cores": 2}, {"mqtt_broker": "mosquitto"}, {"instrumentation": {"paho": 1}}))
    assert "\n" not in line
    result = json.loads(line)
    names = ["untraced", "sampled_10", "traced", "baseline_untraced", "baseline_traced"]
    names += ["downlink", "downlink_traced", "downlink_remoting", "baseline_downlink"]
    assert [name for name in result if name in names] == names
    for name in names:
        assert set(KEYS) <= result[name].keys()
    assert result["traced"]["msgs_per_s"] == 1000.0
    assert result["traced"]["lost"] == 0
    assert result["idle_rss_mib"] == 70.0
    assert result["machine"] == {"cores": 2}
    assert result["instrumentation"] == {"paho": 1}
    assert "against" not in result


def test_a_shape_s_modes_have_the_fields_of_the_modes(run: Measurement) -> None:
    result = summary(_runs(run) | {Key("readme", "traced"): [run]}, {}, {}, {})
    assert result["shapes"].keys() == {"plain", "readme"}
    assert result["shapes"]["plain"] == {"untraced": result["untraced"], "traced": result["traced"]}
    assert result["shapes"]["readme"]["traced"].keys() == result["traced"].keys()


def test_ratios_against_another_commit_are_taken_round_by_round(run: Measurement) -> None:
    result = summary(_compared(run), {}, {}, {})
    assert result["against"] == {"rev": "abc1234", "readme": {"traced": 0.5}}
    assert result["shapes"]["readme"]["traced"]["cpu_us_per_msg"] == 20.0
    assert result["against_shapes"]["readme"]["traced"]["cpu_us_per_msg"] == 60.0


def test_a_subset_of_modes_reports_only_those(run: Measurement) -> None:
    result = summary({Key("plain", "baseline_traced"): [run], Key("plain", "traced"): []}, {}, {}, {})
    assert "baseline_traced" in result
    assert "traced" not in result
    assert result["idle_rss_mib"] is None
    assert result["shapes"] == {}


def _printed(runs: Runs) -> str:
    out = io.StringIO()
    print_report(Console(file=out, width=120), runs)
    return out.getvalue()


def test_the_table_shows_each_ratio_with_its_target(run: Measurement) -> None:
    text = _printed(_runs(run))
    assert "missed" in text
    assert "≥ 10" in text
    assert "≥ 15" in text
    assert "baseline_untraced" in text
    assert "Shapes" not in text


def test_shapes_are_shown_beside_the_other_commit(run: Measurement) -> None:
    text = _printed(_compared(run))
    assert "CPU of abc1234" in text
    assert "0.50 (0.11 to 0.50)" in text
    assert "≤ 0.25" in text


def test_a_generator_that_never_waited_is_called_doubtful(run: Measurement) -> None:
    key = Key("readme", "traced", "abc1234")
    assert "readme traced abc1234: the load generator hardly" in _printed({key: [replace(run, generator_waited=0.0)]})
    assert "load generator" not in _printed({key: [run]})


def test_what_another_commit_lost_is_said_and_no_promise_of_this_one(run: Measurement) -> None:
    text = _printed(_compared(run) | {Key("plain", "traced", "abc1234"): [replace(run, lost=3)]})
    assert "plain traced abc1234: 3 messages acknowledged and lost" in text
