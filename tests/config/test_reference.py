"""The reference, the schema and the example follow the models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spanbridge.config import Config, examine_text
from spanbridge.config.docs import json_schema, main, markdown
from spanbridge.config.example import EXAMPLE
from spanbridge.config.locate import line_numbers
from spanbridge.config.lookup import section_in
from spanbridge.config.models import Section

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("name", "content"), [("configuration.md", markdown), ("spanbridge.schema.json", json_schema)])
def test_generated_files_are_fresh(name: str, content: object) -> None:
    assert callable(content)
    assert (DOCS / name).read_text(encoding="utf-8") == content(), "run: python -m spanbridge.config.docs"


def test_the_generator_writes_both(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configuration.md", "spanbridge.schema.json"]


def sections(section: type[Section]) -> list[type[Section]]:
    inner = [found for field in section.model_fields.values() if (found := section_in(field.annotation))]
    return [section, *(deeper for one in inner for deeper in sections(one))]


def test_every_setting_is_described() -> None:
    for section in sections(Config):
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
            assert field.description.endswith((".", "`.")), f"{section.__name__}.{name}"


def test_the_example_is_valid_and_raises_no_warning() -> None:
    report = examine_text(EXAMPLE, {}, base=Path())
    assert report.problems == []


def test_settings_that_the_example_comments_out_exist() -> None:
    lines = EXAMPLE.splitlines()
    start = lines.index("[mqtt]                              # several brokers: [[mqtt]], each with a name")
    text = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and (" = " in line or line.startswith("# [")) else line
        for line in lines[start:]
    )
    errors = examine_text(text, {}, base=Path()).errors
    assert errors, "the example's secret files do not exist here"
    others = [problem.path for problem in errors if not problem.message.startswith("cannot read")]
    assert others == ["mqtt.tls"], errors  # the example's own URL is a plain one


def test_the_schema_takes_one_broker_or_several() -> None:
    schema = json.loads(json_schema())
    kinds = [option.get("type", "object") for option in schema["properties"]["mqtt"]["anyOf"]]
    assert kinds == ["object", "array"]
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"mqtt", "rocketmq"}
    assert schema["anyOf"] == [{"required": ["routes"]}, {"required": ["downlinks"]}]


def test_line_numbers() -> None:
    text = '''\
name = "x"
[mqtt]
url = "u" # [not.a.table]
will.topic = "w"
[mqtt.tls]
ca_file = """
verify = "inside text"
"""
verify = true
[[routes]]
filter = "a"
[[routes]]
"topic" = "b"
'''
    assert line_numbers(text) == {
        ("name",): 1,
        ("mqtt",): 2,
        ("mqtt", "url"): 3,
        ("mqtt", "will", "topic"): 4,
        ("mqtt", "tls"): 5,
        ("mqtt", "tls", "ca_file"): 6,
        ("mqtt", "tls", "verify"): 9,
        ("routes",): 10,
        ("routes", 0): 10,
        ("routes", 0, "filter"): 11,
        ("routes", 1): 12,
        ("routes", 1, "topic"): 13,
    }
