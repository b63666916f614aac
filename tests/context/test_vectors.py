"""The test vectors that ship with the specification hold for the codec, and for the standard library's base64."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "docs" / "vectors"

_spec = importlib.util.spec_from_file_location("vector_checks", Path(__file__).with_name("vector_checks.py"))
vector_checks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(vector_checks)


def load(name: str) -> dict:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


def cases() -> list:
    found = []
    for (name, part), check in vector_checks.CHECKS.items():
        for number, case in enumerate(load(name)[part]):
            found.append(pytest.param(check, case, id=f"{name}-{part}-{case.get('name', number)}"))
    return found


@pytest.mark.parametrize(("check", "case"), cases())
def test_codec_agrees_with_the_vector(check, case) -> None:
    compared = check(case)
    assert compared
    for said, expected in compared:
        assert said == expected


def test_every_file_and_every_part_is_checked() -> None:
    parts = {(path.stem, part) for path in VECTORS.glob("*.json") for part in load(path.stem) if part != "about"}
    assert parts == set(vector_checks.CHECKS)


def test_names_are_unique_within_a_part() -> None:
    for name, part in vector_checks.CHECKS:
        names = [case["name"] for case in load(name)[part] if "name" in case]
        assert len(names) == len(set(names)), (name, part)


@pytest.mark.parametrize("case", load("parent")["valid"], ids=lambda case: case["name"])
def test_compact_form_is_one_line_of_the_standard_library(case) -> None:
    raw = bytes.fromhex(case["canonical"].replace("-", ""))
    assert base64.urlsafe_b64encode(raw).decode().rstrip("=") == case["compact"]
    assert len(case["compact"]) == 35


def test_checks_report_what_differs() -> None:
    broken = load("topic")
    broken["filters"][0]["also"] = "something else"
    count, failures = vector_checks.check_file("topic", broken)
    assert count == sum(len(broken[part]) for part in ("extract", "inject", "filters"))
    assert len(failures) == 1
