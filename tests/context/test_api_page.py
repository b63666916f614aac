"""Pages that are made from the codec, and the list of its files for MicroPython's installer, are current."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path

import spanbridge_context

ROOT = Path(__file__).parents[2]

_spec = importlib.util.spec_from_file_location("generate_context_api", ROOT / "docs" / "generate_context_api.py")
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


def test_the_api_page_is_what_make_docs_writes() -> None:
    assert (ROOT / "docs" / "context-api.md").read_text("utf-8") == generate.page()


def test_the_api_page_describes_every_public_name() -> None:
    page = generate.page()
    for name in spanbridge_context.__all__:
        assert f"### `{name}`" in page
        assert getattr(spanbridge_context, name).__doc__


def test_mip_installs_all_files_of_the_codec() -> None:
    package = json.loads((ROOT / "context" / "package.json").read_text("utf-8"))
    folder = ROOT / "context" / "spanbridge_context"
    expected = sorted(f"spanbridge_context/{path.name}" for path in folder.glob("*.py") if path.name != "otel.py")
    # Of each pair the first is a path on the board, the second one beside package.json.
    assert package["urls"] == [[name, name] for name in expected]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert package["version"] == project["version"]
    assert package["deps"] == project["dependencies"] == []


def test_the_examples_are_linked() -> None:
    for page in ("wire-format.md", "context-api.md"):
        assert "(../examples/codec/carriers.py)" in (ROOT / "docs" / page).read_text("utf-8")
