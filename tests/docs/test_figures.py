"""Every page quotes the same figures: those of docs/figures.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DATA: dict[str, Any] = json.loads((ROOT / "docs" / "figures.json").read_text())
FIGURES: dict[str, dict[str, Any]] = DATA["figures"]
PAGES = ("README.md", "docs/deployment.md", "docs/benchmark.md", "docs/operations.md", "docs/telemetry.md")


def lines(page: str) -> list[str]:
    return (ROOT / page).read_text().splitlines()


QUOTES = [(name, page, line) for name, entry in FIGURES.items() for page, line in entry["quoted"].items()]


@pytest.mark.parametrize(("name", "page", "line"), QUOTES)
def test_is_quoted_as_it_stands(name: str, page: str, line: str) -> None:
    figures = FIGURES[name]["figures"]
    assert line.count("{}") == len(figures)
    assert line.format(*figures) in lines(page)


def test_the_table_of_the_first_page_has_no_other() -> None:
    table = (ROOT / "README.md").read_text().split("\n## How fast\n")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    quoted = [line.format(*FIGURES[name]["figures"]) for name, page, line in QUOTES if page == "README.md"]
    assert rows == quoted
    assert f"on {DATA['machine']}" in " ".join(table.split())


@pytest.mark.parametrize("page", PAGES)
def test_no_page_has_another_figure_for_the_idle_gateway(page: str) -> None:
    idle = [
        line for line in lines(page) if re.search(r"\bidle\b", line) and re.search(r"(?<!≤ )\b\d+ MiB", line)
    ]  # a promise is no figure
    quoted = [line.format(*FIGURES[name]["figures"]) for name, where, line in QUOTES if where == page]
    assert [line for line in idle if line not in quoted] == []
