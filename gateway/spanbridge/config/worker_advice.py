"""What is to be said of several workers: what becomes of order, who has nothing to do, what was left by others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from spanbridge.config.models import Config
from spanbridge.config.parts import Parts
from spanbridge.config.problems import Finding, warning
from spanbridge.config.split import Portion, split, worker_directory
from spanbridge.core.template import Template

_LEAST_SEGMENTS = 4
_OF_A_WORKER = re.compile(r"worker-([1-9][0-9]*)")


def advise_on_workers(parts: Parts) -> Iterator[Finding]:
    """Errors and warnings that the number of workers, and how they divide the work, give cause for."""
    config = parts.config
    if not parts.knows_all(("gateway",), "workers", "split"):
        return
    if config.spool is not None and parts.knows_all(("spool",), "path", "max_bytes", "segment_bytes"):
        yield from _spool(config)
    if config.gateway.workers == 1:
        if "split" in config.gateway.model_fields_set:
            yield warning(("gateway", "split"), "has no effect with one worker", "set `workers` to more than 1")
        return
    whole = len(parts.routes()) == len(config.routes) and len(parts.brokers()) == len(config.mqtt)
    if whole and parts.knows("name"):
        portions = split(config)
        yield from _order(config, portions)
        yield from _idle(config, portions)
    yield from _client_ids(parts)


def _order(config: Config, portions: list[Portion]) -> Iterator[Finding]:
    shared = [one for one in portions if one.worker is None]
    brokers = {broker.name: broker for broker in config.mqtt}
    ours = [one for one in shared if brokers[one.broker].share is None]
    ordered = next((one for one in ours if one.ordered), None)
    if ordered is not None:
        yield warning(
            ("gateway", "split"),
            f"gives messages of one device to several workers, although a route of `{ordered.filters[0]}` has a "
            "`message_group`: the order is kept by most brokers within a worker only",
            'use `split = "auto"`, which leaves such filters to one worker',
            show_value=True,
        )
    overlapping = next((one for one in shared if one.overlapping), None)
    if overlapping is not None:
        names = " and ".join(f"`{text}`" for text in overlapping.filters[:2])
        yield warning(
            ("gateway", "split"),
            f"lets two workers have a message each that matches {names}: it is forwarded twice",
            'use `split = "auto"`, make the filters disjoint, or add a route that covers both',
            show_value=True,
        )
    if any(brokers[one.broker].version == "3.1.1" for one in ours):
        yield warning(
            ("gateway", "split"),
            "is not part of MQTT 3.1.1; the broker has to support `$share` as an extension",
            show_value=True,
        )


def _idle(config: Config, portions: list[Portion]) -> Iterator[Finding]:
    """Workers without a subscription. With downlinks, each has its part of those."""
    alone = [one for one in portions if one.worker is not None]
    if config.downlinks or len(alone) < len(portions) or len(alone) >= config.gateway.workers:
        return
    yield warning(
        ("gateway", "workers"),
        f"are more than there is to divide: a filter is one worker's where the order is kept, and there are "
        f"{len(alone)}",
        "MQTT divides no filter by its `+`: write several (`plant/a/+`, `plant/b/+`), or give the order up by `split = "
        '"share"`',
        show_value=True,
    )


def _client_ids(parts: Parts) -> Iterator[Finding]:
    for index, route in parts.routes("topic").items():
        if any(one.kind == "client_id" for one in Template.parse(route.topic).fields):
            yield warning(
                ("routes", index, "topic"),
                "names the client id, and each worker has one of its own: messages go to as many topics",
                show_value=True,
            )


def _spool(config: Config) -> Iterator[Finding]:
    spool, workers = config.spool, config.gateway.workers
    assert spool is not None
    if workers > 1 and spool.max_bytes // workers < _LEAST_SEGMENTS * spool.segment_bytes:
        yield Finding(
            loc=("spool", "max_bytes"),
            message=f"leaves each of {workers} workers less than four times `segment_bytes`",
            hint="the workers share it evenly: raise it, or lower `segment_bytes`",
        )
    for path in _left(spool.path, workers):
        yield warning(
            ("spool", "path"),
            f"has messages in {path} that none of {workers} worker(s) sends",
            f"`spanbridge spool export --path {path} > left.jsonl`, then `spanbridge spool replay left.jsonl`",
        )


def _left(spool: Path, workers: int) -> list[Path]:
    """Directories with messages of another number of workers. Blocking."""
    own = {spool} if workers == 1 else {worker_directory(spool, number) for number in range(1, workers + 1)}
    try:
        inside = sorted(one for one in spool.iterdir() if _OF_A_WORKER.fullmatch(one.name))
        return [one for one in (spool, *inside) if one not in own and any(one.glob("*.seg"))]
    except OSError:
        return []
