"""No page, message or script installs spanbridge by its bare name: it is on no index, and the name is free to take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spanbridge.deployment import WHEEL

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "examples", "deploy", "gateway", "context", "bench", ".ci")
FILES = [
    *(path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"),
    *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"),
]
# `install`, options and other packages, then the name by itself: not a path, and not a name with its address.
BY_NAME = re.compile(
    r"\b(?:pip\d? (?:install|download|wheel)|pipx (?:install|run)|uv add|poetry add|uvx)[ \t]+(?:[^\s`&|]+[ \t]+)*?"
    r"[\"'\\]*spanbridge(?!\[[\w,]+\] @ file:)(?=[\[\"'`\s=<>~]|$)",
    re.MULTILINE,
)


@pytest.mark.parametrize(
    "text",
    [
        "pip install spanbridge",
        "`pip install spanbridge` is small",
        "sudo /opt/spanbridge/bin/pip install --upgrade 'spanbridge[gateway]'",
        'pip install "spanbridge[instrument]" opentelemetry-distro',
        "pip install opentelemetry-distro spanbridge",
        "pip install spanbridge==0.1.0",
        "uv pip install spanbridge",
        "uvx spanbridge run",
    ],
)
def test_names_are_found(text: str) -> None:
    assert BY_NAME.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install '.[gateway]'",
        "pip install './dist/spanbridge-0.1.0-py3-none-any.whl[gateway]'",
        'pip install -e "/src/spanbridge[gateway]"',
        '/opt/spanbridge/bin/pip install --only-binary=:all: "spanbridge[gateway] @ file://${wheel}"',
    ],
)
def test_paths_are_let_pass(text: str) -> None:
    assert not BY_NAME.search(text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_installs_by_name(file: Path) -> None:
    assert [match[0] for match in BY_NAME.finditer(file.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("page", [file for file in FILES if file.suffix == ".md"], ids=lambda file: file.name)
def test_a_wheel_that_a_page_names_is_the_one_that_is_built(page: Path) -> None:
    assert set(re.findall(r"spanbridge-[\w.]+-py3-none-any\.whl", page.read_text())) <= {WHEEL}
