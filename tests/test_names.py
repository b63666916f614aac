"""One name for one thing: no two classes of the gateway share one."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

GATEWAY = Path(__file__).parents[1] / "gateway"


def test_a_class_name_is_used_once_in_the_gateway() -> None:
    """Private and inner ones may repeat: outside their file or class nobody sees them."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in sorted(GATEWAY.rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{file.relative_to(GATEWAY)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
