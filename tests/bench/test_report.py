"""The table and, above all, the JSON line that others parse."""

from __future__ import annotations

import io
import json
from dataclasses import replace

from rich.console import Console

from bench.modes import MODES
from bench.report import KEYS, last_line, print_report, summary
from bench.stats import Measurement


def _runs(run: Measurement) -> dict[str, list[Measurement]]:
    return {mode.name: [run, replace(run, msgs_per_s=1100.0), replace(run, msgs_per_s=900.0)] for mode in MODES}


def test_the_json_line_has_every_promised_key_for_every_mode(run: Measurement) -> None:
    line = last_line(summary(_runs(run), {"cores": 2}, {"mqtt_broker": "mosquitto"}, {"instrumentation": {"paho": 1}}))
    assert "\n" not in line
    result = json.loads(line)
    names = ["untraced", "sampled_10", "traced", "baseline_untraced", "baseline_traced"]
    assert [name for name in result if name in names] == names
    for name in names:
        assert set(KEYS) <= result[name].keys()
    assert result["traced"]["msgs_per_s"] == 1000.0
    assert result["traced"]["lost"] == 0
    assert result["idle_rss_mib"] == 70.0
    assert result["machine"] == {"cores": 2}
    assert result["instrumentation"] == {"paho": 1}


def test_a_subset_of_modes_reports_only_those(run: Measurement) -> None:
    result = summary({"baseline_traced": [run], "traced": []}, {}, {}, {})
    assert "baseline_traced" in result
    assert "traced" not in result
    assert result["idle_rss_mib"] is None


def _printed(runs: dict[str, list[Measurement]]) -> str:
    out = io.StringIO()
    print_report(Console(file=out, width=120), runs)
    return out.getvalue()


def test_the_table_shows_each_ratio_with_its_target(run: Measurement) -> None:
    text = _printed(_runs(run))
    assert "missed" in text
    assert "≥ 10" in text
    assert "≥ 15" in text
    assert "baseline_untraced" in text


def test_a_generator_that_never_waited_is_called_doubtful(run: Measurement) -> None:
    assert "load generator hardly waited" in _printed({"traced": [replace(run, generator_waited=0.0)]})
    assert "load generator" not in _printed({"traced": [run]})
