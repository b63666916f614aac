"""What `[lag]` would read, read once: name servers and brokers answer, and the account may ask (`GET`)."""

from __future__ import annotations

from time import monotonic

from spanbridge.app.clock import SystemClock
from spanbridge.app.findings import PeerFinding, milliseconds
from spanbridge.app.lag import lag_options, offsets_options
from spanbridge.config import Config
from spanbridge.lag import LagReader
from spanbridge.rocketmq.offsets import RemotingOffsets

_MOST = 8
"""Causes that are told; a cluster that refuses refuses every queue."""


async def ask_lag(config: Config) -> list[PeerFinding]:
    """One finding, or one for each cause that keeps a part from being read; none without `[lag]`.

    A cause is a warning: messages do not depend on it.
    """
    if config.lag is None:
        return []
    name, began = config.rocketmq.name, monotonic()
    offsets = RemotingOffsets(offsets_options(config, config.lag.name_servers, config.lag.timeout))
    try:
        reading = await LagReader(offsets, lag_options(config), SystemClock()).read()
    finally:
        await offsets.close()
    causes = [cause for cause, _ in reading.errors]
    if causes:
        return [PeerFinding(name, "lag", "warning", cause) for cause in causes[:_MOST]]
    text = f"{len({row.group for row in reading.rows})} group(s) read, with {reading.requests} requests"
    return [PeerFinding(name, "lag", "ok", text, milliseconds(began))]
