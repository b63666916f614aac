"""The adapters that downlinks need: a consumer for each, a publisher for each broker that they publish to."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from spanbridge.app.changes import DownlinkChanges, Loaded
from spanbridge.app.convert import DownlinkPlan
from spanbridge.app.events import ConnectionRemoved, ConsumerRemoved
from spanbridge.core.message import Message
from spanbridge.downlink import ConsumerCalls, Downlinks, DownlinkSettings, Outbound
from spanbridge.mqtt import MqttPublisher, check_options, create_publisher
from spanbridge.ports import Link, QueueSource
from spanbridge.rocketmq import ClusterProtocol, create_consumer
from spanbridge.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class DownlinkAdapters:
    """What was made and is not yet in use: publishers by broker, consumers by downlink."""

    publishers: dict[str, MqttPublisher[Outbound]] = field(default_factory=dict)
    consumers: dict[str, QueueSource[Message]] = field(default_factory=dict)


class DownlinkPeers:
    """Makes the adapters of downlinks, and changes them with the configuration.

    ``publishers`` and ``consumers`` are live views, for those who look at connections.
    """

    def __init__(self, downlinks: Downlinks, telemetry: Telemetry, protocol: ClusterProtocol) -> None:
        self.downlinks = downlinks
        self.publishers: dict[str, MqttPublisher[Outbound]] = {}
        self.consumers: dict[str, QueueSource[Message]] = {}
        self._groups: dict[str, str] = {}
        """Consumer groups by downlinks."""
        self._telemetry = telemetry
        self._protocol = protocol

    def make(
        self, loaded: Loaded, publishers: Collection[str] | None = None, downlinks: Collection[str] | None = None
    ) -> DownlinkAdapters:
        """Make the adapters of these, or of all. Blocking: TLS files are read.

        :raises SpanbridgeError: an option cannot work on this machine.
        """
        made = DownlinkAdapters()
        for name, options in loaded.publishers.items():
            check_options(options)
            if publishers is None or name in publishers:
                made.publishers[name] = create_publisher(options, self._telemetry.reporter)
        for name, plan in loaded.downlinks.items():
            if downlinks is None or name in downlinks:
                made.consumers[name] = self._consumer(plan)
        return made

    def _consumer(self, plan: DownlinkPlan) -> QueueSource[Message]:
        telemetry = self._telemetry
        calls = ConsumerCalls(
            plan.downlink,
            plan.ends.cluster,
            tracer=telemetry.tracer,
            metrics=telemetry.downlink_metrics,
            reporter=telemetry.reporter,
        )
        return create_consumer(
            plan.consumer,
            telemetry.reporter,
            received=calls.received,
            acked=calls.acked,
            protocol=self._protocol,
        )

    def attach(self, plans: Mapping[str, DownlinkPlan], made: DownlinkAdapters) -> None:
        """Take these adapters into use; they run as long as the downlinks do."""
        self.publishers |= made.publishers
        for name, consumer in made.consumers.items():
            plan = plans[name]
            self.consumers[name] = consumer
            self._groups[name] = plan.downlink.group
            self.downlinks.attach(plan.downlink, consumer, self.publishers[plan.downlink.broker], plan.ends)

    async def change(
        self, after: Loaded, found: DownlinkChanges, made: DownlinkAdapters, settings: DownlinkSettings
    ) -> None:
        """Let those go that are left out or made anew, then take the new ones into use.

        What they have is finished within the drain timeout, or given back: a broker may be replaced for being away.
        """
        deadline = after.config.downlink.drain_timeout
        leaving = [*found.removed, *found.renewed]
        await asyncio.gather(*(self.downlinks.detach(name, deadline) for name in leaving))
        for name in leaving:
            del self.consumers[name]
        self._tell_removed(after, found)
        for name in found.publishers_gone:
            self.publishers.pop(name, None)
        for name in found.reconnected:
            self.publishers[name].reconfigure(after.publishers[name], renew=True)
        plans = after.downlinks
        self.downlinks.use(
            [plans[name].downlink for name in plans if name not in made.consumers],
            ends={name: plan.ends for name, plan in plans.items()},
            settings=settings,
        )
        self.attach(plans, made)

    def _tell_removed(self, after: Loaded, found: DownlinkChanges) -> None:
        """Nobody is to be reminded that these are away."""
        report = self._telemetry.reporter.report
        groups = {plan.downlink.group for plan in after.downlinks.values()}
        for name in (*found.removed, *found.renewed):
            if (group := self._groups.pop(name)) not in groups:
                report(ConsumerRemoved(group=group, downlink=name))
        for name in found.publishers_gone:
            if name not in found.publishers and (publisher := self.publishers.get(name)) is not None:
                report(ConnectionRemoved(source=name, broker=publisher.options.broker))

    def consumers_up(self) -> list[tuple[float, dict[str, str]]]:
        """For a gauge."""
        return [(int(one.status.link is Link.UP), {"downlink": name}) for name, one in self.consumers.items()]

    def publishers_up(self) -> list[tuple[float, dict[str, str]]]:
        """For a gauge."""
        return [(int(one.status.link is Link.UP), {"broker": name}) for name, one in self.publishers.items()]

    def show(self) -> None:
        """Have both in gauges."""
        gauge = self._telemetry.gauge
        gauge("spanbridge.consumer.up", self.consumers_up, description="1 while a downlink receives, else 0.")
        text = "1 while the connection that publishes to the MQTT broker is up, else 0."
        gauge("spanbridge.publisher.up", self.publishers_up, description=text)
