"""The codec's example and the snippets of its documentation run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import spanbridge_context

ROOT = Path(__file__).parents[2]


def test_the_example_shows_every_carrier() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / "codec" / "carriers.py"], capture_output=True, text=True, check=True
    )
    assert len(result.stdout.splitlines()) == 6
    assert "/~tp/" in result.stdout


def snippets() -> list[str]:
    text = (ROOT / "docs" / "wire-format.md").read_text("utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_two_lines_are_enough_on_either_side() -> None:
    inject, extract = snippets()
    for snippet in (inject, extract):
        assert len([line for line in snippet.splitlines() if line]) == 2
        for line in snippet.strip().splitlines():
            assert line in spanbridge_context.__doc__
    device = {"properties": SimpleNamespace()}
    exec(inject, device)
    sent = spanbridge_context.extract_user_properties(device["properties"].UserProperty).context
    message = spanbridge_context.inject_rocketmq({}, sent.child())
    consumer: dict = {"message": SimpleNamespace(properties=message)}
    exec(extract, consumer)
    assert consumer["problem"] is None
    assert consumer["context"].trace_id == sent.trace_id


def test_specification_names_every_problem_and_every_vector_file() -> None:
    text = (ROOT / "docs" / "wire-format.md").read_text("utf-8")
    for problem in spanbridge_context.PROBLEMS:
        assert f"| `{problem}` |" in text
    for path in (ROOT / "docs" / "vectors").glob("*.json"):
        assert f"(vectors/{path.name})" in text


def test_specifications_example_is_right() -> None:
    text = (ROOT / "docs" / "wire-format.md").read_text("utf-8")
    parent = re.search(r"^text +(\S+)$", text, re.MULTILINE).group(1)
    compact = re.search(r"^compact +(\S{35})$", text, re.MULTILINE).group(1)
    assert spanbridge_context.parse_traceparent(parent).compact == compact


@pytest.mark.parametrize(
    "path", sorted((ROOT / "context" / "spanbridge_context").glob("*.py")), ids=lambda path: path.stem
)
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 250
