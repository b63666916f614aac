"""How workers divide subscriptions, and what is said of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from spanbridge.config import Config, examine_text
from spanbridge.config.split import Portion, split

HEAD = """\
name = "gw"
[gateway]
workers = {workers}
split = "{split}"
[[mqtt]]
name = "a"
url = "mqtt://127.0.0.1:1883"
{broker}
[rocketmq]
endpoints = "127.0.0.1:8081"
"""


def text(*filters: str, workers: int = 2, how: str = "auto", broker: str = "", more: str = "", end: str = "") -> str:
    routes = "".join(f'[[routes]]\nfilter = "{one}"\ntopic = "t"\n{more}\n' for one in filters)
    return HEAD.format(workers=workers, split=how, broker=broker) + routes + end


def config(*filters: str, **options: str | int) -> Config:
    report = examine_text(text(*filters, **options), {}, base=Path())  # type: ignore[arg-type]
    assert report.config is not None, report.errors
    return report.config


def warnings(written: str, base: Path = Path()) -> list[str]:
    return [f"{one.path}: {one.message}" for one in examine_text(written, {}, base=base).problems]


GROUP = 'message_group = "{topic}"'


def test_filters_are_shared_where_order_does_not_matter() -> None:
    found = split(config("a/+", "b/+"))
    assert found == [Portion("a", ("a/+",), None), Portion("a", ("b/+",), None)]


@pytest.mark.parametrize(
    ("options", "alone"),
    [
        ({"more": GROUP}, True),
        ({"broker": 'version = "3.1.1"'}, True),
        ({"how": "filters"}, True),
        ({"how": "share", "more": GROUP}, False),
        ({"broker": 'share = "pair"', "more": GROUP}, False),
    ],
)
def test_when_a_filter_is_one_workers(options: dict[str, str], alone: bool) -> None:
    (portion,) = split(config("a/+", **options))
    assert (portion.worker is not None) is alone


def test_filters_that_overlap_stay_together() -> None:
    """A message that matches two subscriptions comes twice to one connection, which knows; not to two workers."""
    found = split(config("a/+", "+/b", "c/d", "a/#", how="filters"))
    assert sorted(one.filters for one in found) == [("+/b", "a/#"), ("c/d",)] or sorted(
        set(one.filters) for one in found
    ) == [{"a/#", "+/b"}, {"c/d"}]
    assert [one.overlapping for one in found if "+/b" in one.filters] == [True]


def test_a_topic_and_its_form_with_a_trace_context_stay_together() -> None:
    (portion,) = split(config("a/+", more='carriers = ["topic-suffix"]\n' + GROUP))
    assert set(portion.filters) == {"a/+", "a/+/~tp/+"}


@pytest.mark.parametrize("count", [1, 2, 5, 8, 17])
@pytest.mark.parametrize("workers", [2, 3, 4])
def test_each_worker_has_its_share_of_them(count: int, workers: int) -> None:
    found = split(config(*(f"line-{number}/+" for number in range(count)), workers=workers, how="filters"))
    load = Counter(one.worker for one in found)
    assert len(found) == count
    assert max(load.values()) <= -(-count // workers)
    assert set(load) <= set(range(1, workers + 1))


def test_most_filters_stay_where_they_are_when_one_comes() -> None:
    names = [f"line-{number}/+" for number in range(40)]
    before = {one.filters: one.worker for one in split(config(*names, workers=4, how="filters"))}
    after = {one.filters: one.worker for one in split(config(*names, "another/+", workers=4, how="filters"))}
    assert sum(before[key] != after[key] for key in before) <= 10


def test_the_order_that_share_gives_up_is_told() -> None:
    (told,) = warnings(text("a/+", how="share", more=GROUP))
    assert told.startswith("gateway.split: gives messages of one device to several workers")
    assert warnings(text("a/+", "b/+", more=GROUP)) == []


def test_copies_are_told() -> None:
    told = warnings(text("a/+", "+/b", how="share"))
    assert any("lets two workers have a message each that matches `a/+` and `+/b`" in one for one in told)
    assert not any(one.startswith("gateway") for one in warnings(text("a/+", "+/b", "c/d")))


def test_workers_without_a_filter_are_told() -> None:
    (told,) = warnings(text("a/+", workers=3, more=GROUP))
    assert told.startswith("gateway.workers: are more than there is to divide")
    assert "there are 1" in told


def test_a_topic_by_the_client_id_becomes_several() -> None:
    written = text("a/+").replace('topic = "t"', 'topic = "t-{client_id}"')
    (told,) = warnings(written)
    assert told.startswith("routes[0].topic: names the client id, and each worker has one of its own")


def test_split_without_workers_has_no_effect() -> None:
    (told,) = warnings(text("a/+", workers=1, how="share"))
    assert told == "gateway.split: has no effect with one worker"


def test_a_spool_has_to_be_large_enough_for_all(tmp_path: Path) -> None:
    spool = f'[spool]\npath = "{tmp_path}"\nmax_bytes = "64MiB"\n'
    (told,) = warnings(text("a/+", end=spool))
    assert told == "spool.max_bytes: leaves each of 2 workers less than four times `segment_bytes`"
    assert warnings(text("a/+", workers=1, end=spool).replace('split = "auto"\n', "")) == []


@pytest.mark.parametrize(("workers", "left"), [(1, ["worker-1", "worker-3"]), (2, ["", "worker-3"]), (4, [""])])
def test_what_another_number_of_workers_left_is_told(tmp_path: Path, workers: int, left: list[str]) -> None:
    for name in ("", "worker-1", "worker-3"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{0:020d}-0000-00000000.seg").touch()
    spool = f'[spool]\npath = "{tmp_path}"\n'
    told = warnings(text("a/+", workers=workers, end=spool).replace('split = "auto"\n', ""))
    assert [one for one in told if one.startswith("spool.path")] == [
        f"spool.path: has messages in {tmp_path / name} that none of {workers} worker(s) sends" for name in left
    ]
