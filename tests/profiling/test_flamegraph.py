"""What is made of a profile to look at: read back from pprof, as a tree, as HTML, as speedscope's JSON."""

from __future__ import annotations

import gzip
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from spanbridge_profiling import Counts, Frame, Profile, Sample
from spanbridge_profiling.flamegraph import write_flame_graph
from spanbridge_profiling.flames import by_label, hottest, tree
from spanbridge_profiling.pprof import write_pprof
from spanbridge_profiling.reading import UnreadableProfile, read_pprof
from spanbridge_profiling.speedscope import write_speedscope

MAIN = Frame("main", "/app/main.py", 3, 1)
DECODE = Frame("Codec.decode", "/app/codec.py", 12, 10)
LATER = Frame("Codec.decode", "/app/codec.py", 14, 10)
SELECT = Frame("select", "/usr/lib/python3.11/selectors.py", 7, 5)
ODD = Frame("<lambda> & co", "<string>", 1, 1)
TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PROFILE = Profile(
    started_ns=1_700_000_000_000_000_000,
    duration_ns=10_000_000_000,
    period_ns=10_000_000,
    samples=(
        Sample((DECODE, MAIN), TRACE, SPAN, "MainThread", "", 3, 30_000_000, (("spanbridge.stage", "mqtt.codec"),)),
        Sample((LATER, MAIN), 0, 0, "MainThread", "", 2, 20_000_000, (("spanbridge.stage", "mqtt.codec"),)),
        Sample((SELECT, MAIN), 0, 0, "MainThread", "", 4, 40_000_000, (("spanbridge.stage", "runtime"),)),
        Sample((ODD,), 0, 0, "worker;1", "", 1, 10_000_000),
    ),
    counts=Counts(linked=3, without_span=7, unknown=0, lost=1),
)
EMPTY = Profile(started_ns=1, duration_ns=1_000_000_000, period_ns=10_000_000)


def test_what_is_written_is_read_back() -> None:
    assert read_pprof(write_pprof(PROFILE)) == PROFILE
    assert read_pprof(gzip.decompress(write_pprof(PROFILE))) == PROFILE, "compression is the writer's choice"
    assert read_pprof(write_pprof(EMPTY)) == EMPTY


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="something else"),
        pytest.param(b"\x1f\x8bnonsense", id="no gzip"),
        pytest.param(write_pprof(PROFILE)[:-20], id="cut short"),
        pytest.param(gzip.decompress(write_pprof(PROFILE))[:300], id="cut short, plain"),
        pytest.param(b"\x12\x02\x0a\x00", id="no CPU time"),
        pytest.param(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", id="no number"),
    ],
)
def test_what_is_no_profile_is_told(content: bytes) -> None:
    with pytest.raises(UnreadableProfile, match="no pprof profile: "):
        read_pprof(content)


def test_every_prefix_is_refused_or_read() -> None:
    plain = gzip.decompress(write_pprof(PROFILE))
    for end in range(len(plain)):
        try:
            read_pprof(plain[:end])
        except UnreadableProfile:
            continue


def test_the_tree_joins_lines_of_a_function() -> None:
    root = tree(PROFILE.samples)
    assert (root.total_ns, root.samples) == (PROFILE.cpu_ns, 10)
    main = root.called["main", "/app/main.py"]
    assert main.total_ns == 90_000_000
    assert main.self_ns == 0
    assert main.called["Codec.decode", "/app/codec.py"].self_ns == 50_000_000


def test_a_profile_in_lines() -> None:
    assert hottest(PROFILE.samples, 2) == [(DECODE, 50_000_000), (SELECT, 40_000_000)]
    assert by_label(PROFILE, "spanbridge.stage") == [
        ("mqtt.codec", 50_000_000),
        ("runtime", 40_000_000),
        ("", 10_000_000),
    ]
    assert by_label(PROFILE, "span_id") == [("", 70_000_000), ("b7ad6b7169203331", 30_000_000)]


class Page(HTMLParser):
    """What a page would load, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action", "data"}]
        if tag in {"link", "iframe", "img", "object"}:
            self.loads.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def flames(page: str) -> list[ET.Element]:
    """The frames, which are SVG that parses."""
    [drawn] = re.findall(r'<svg id="flames".*\n</svg>', page, re.DOTALL)
    return list(ET.fromstring(drawn))


def test_the_page_is_one_file_and_nothing_in_it_is_markup_by_accident() -> None:
    page = write_flame_graph(PROFILE, "CPU of <edge> {{flames}}")
    found = Page()
    found.feed(page)
    assert found.loads == []
    assert "http" not in page.replace("http-equiv", "")
    assert "CPU of <edge> {{flames}}" in found.text
    assert "100.0 ms of CPU time, 1.0% of one CPU, in 10 samples" in found.text
    assert "3 samples with a span, 7 without, 1 not kept" in found.text
    assert f"{TRACE:032x}" in found.text
    assert "<lambda>" not in page


def test_frames_are_as_wide_as_their_share_and_lie_below_their_callers() -> None:
    page = flames(write_flame_graph(PROFILE, "t"))
    drawn = {str(frame[0].text).split(":")[0]: frame for frame in page}
    place = {name: (float(one.attrib["data-x"]), float(one.attrib["data-w"])) for name, one in drawn.items()}
    assert place["all"] == (0, 1)
    assert place["main (app/main.py)"][1] == pytest.approx(0.9)
    assert place["Codec.decode (app/codec.py)"][1] == pytest.approx(0.5)
    assert [drawn[name].attrib["y"] for name in ("all", "main (app/main.py)", "select (python3.11/selectors.py)")] == [
        "0",
        "18",
        "36",
    ]
    inner, outer = place["select (python3.11/selectors.py)"], place["main (app/main.py)"]
    assert outer[0] <= inner[0]
    assert inner[0] + inner[1] <= outer[0] + outer[1] + 1e-7
    assert {drawn[name].attrib["class"].split()[1] for name in ("all", "main (app/main.py)")} == {"group", "own"}
    assert drawn["select (python3.11/selectors.py)"].attrib["class"].split()[1] == "lib"


def test_one_flame_for_each_value_of_a_label() -> None:
    page = write_flame_graph(PROFILE, "t", by="spanbridge.stage")
    level = [frame[2].text for frame in flames(page) if frame.attrib["y"] == "18"]
    assert level == ["spanbridge.stage: mqtt.codec", "spanbridge.stage: none", "spanbridge.stage: runtime"]


def test_narrow_frames_are_left_out() -> None:
    crowd = tuple(Sample((Frame(f"f{number}", "/f.py", 1, 1),), 0, 0, "m", "", 1, 1) for number in range(9999))
    page = write_flame_graph(Profile(1, 1, 1, crowd), "t")
    assert len(flames(page)) == 1
    assert len(page) < 20_000


def test_nothing_ran() -> None:
    page = write_flame_graph(EMPTY, "t")
    assert "no samples: nothing used the CPU" in page
    assert json.loads(write_speedscope(EMPTY, "t"))["profiles"][0]["samples"] == []


def test_speedscope() -> None:
    """www.speedscope.app/file-format-schema.json."""
    found = json.loads(write_speedscope(PROFILE, "t"))
    assert (found["$schema"], found["name"]) == ("https://www.speedscope.app/file-format-schema.json", "t")
    frames = found["shared"]["frames"]
    main, worker = found["profiles"]
    assert (main["type"], main["name"], main["unit"], worker["name"]) == (
        "sampled",
        "MainThread",
        "nanoseconds",
        "worker;1",
    )
    assert main["weights"] == [30_000_000, 20_000_000, 40_000_000]
    assert (main["startValue"], main["endValue"]) == (0, 90_000_000)
    assert [[frames[number]["name"] for number in stack] for stack in main["samples"]] == [
        ["main", "Codec.decode"],
        ["main", "Codec.decode"],
        ["main", "select"],
    ]
    assert frames[main["samples"][0][1]] == {"name": "Codec.decode", "file": "/app/codec.py", "line": 12}
