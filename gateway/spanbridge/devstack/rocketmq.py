"""A real RocketMQ: one name server, and one JVM with broker and gRPC proxy (or one each, in cluster mode)."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Literal

from spanbridge.devstack import topics
from spanbridge.devstack.access import RocketmqAccounts
from spanbridge.devstack.errors import DevstackError, ServiceError
from spanbridge.devstack.jars import ensure_jars
from spanbridge.devstack.ports import LOOPBACK, PortLease, accepts
from spanbridge.devstack.probe import NotYet, until
from spanbridge.devstack.process import KeeperClient, ServerProcess
from spanbridge.devstack.progress import Progress, silent
from spanbridge.devstack.remoting_probe import RemotingProbe
from spanbridge.devstack.rocketmq_probe import RocketmqProbe
from spanbridge.devstack.rocketmq_setup import RocketmqFiles, RocketmqPorts, RocketmqSetup, java
from spanbridge.rocketmq.remoting.frame import AclKeys

MessageType = Literal["NORMAL", "FIFO", "DELAY", "TRANSACTION", "LITE", "PRIORITY", "MIXED"]

START_SECONDS = 180.0  # 6 s when idle; 44 s were seen on two cores that ran four more of these
_ROUTE_SECONDS = 60.0
_ROOM_BYTES = 200 * 1000 * 1000
READY_NAME = "SPANBRIDGE_READY"
"""Topic and consumer group of the readiness probe, on every stack."""
_BROKERS_OWN_TOPIC = "SELF_TEST_TOPIC"


class RocketmqBroker:
    """RocketMQ on loopback.

    ``stop``, ``start``, ``restart``, ``kill``, ``pause`` and ``resume`` act on the JVM with broker and proxy, on the
    same ports and with the stored messages kept; the name server runs on.

    Raises:
        DevstackError: no room, no Java, no jars, or ports that cannot be had.
    """

    host = LOOPBACK

    def __init__(
        self,
        keeper: KeeperClient,
        ports: PortLease,
        directory: Path,
        setup: RocketmqSetup,
        *,
        progress: Progress = silent,
    ) -> None:
        self.setup = setup
        self.namesrv_port = ports.take()
        self.broker_port = ports.take(-2, 1)
        self.port = ports.take()
        self.remoting_port = ports.take()
        self.exporter_port = ports.take()
        _check_room(directory.parent)
        taken = RocketmqPorts(self.namesrv_port, self.broker_port, self.port, self.remoting_port, self.exporter_port)
        files = RocketmqFiles(setup, taken, directory, ensure_jars(progress, setup.version), java=java())
        self.certificates = files.certificates

        def process(name: str, argv: list[str]) -> ServerProcess:
            environment = {"RMQ_PROXY_HOME": str(directory), "CLASSPATH": ""}
            return ServerProcess(keeper=keeper, name=name, argv=argv, directory=directory, env=environment)

        self._namesrv = process("rocketmq-namesrv", files.namesrv())
        self._broker: ServerProcess | None = None
        if not setup.has_proxy:
            self._proxy = process("rocketmq", files.broker())
        else:
            if setup.cluster_mode:
                self._broker = process("rocketmq-broker", files.broker())
            self._proxy = process("rocketmq", files.proxy())
        self._probe = RocketmqProbe(f"{LOOPBACK}:{self.port}", READY_NAME, READY_NAME, credentials=setup.credentials)
        self._remoting_probe = RemotingProbe(
            f"{LOOPBACK}:{self.broker_port}", READY_NAME, READY_NAME, keys=self.broker_keys
        )

    @property
    def endpoints(self) -> str:
        """``host:port`` for a gateway: of the gRPC proxy, plaintext and TLS on one port; on 4.x of the name server."""
        return f"{self.host}:{self.port if self.setup.has_proxy else self.namesrv_port}"

    @property
    def credentials(self) -> tuple[str, str] | None:
        """Access key and secret key that the proxy asks for (4.x: the broker); with authorization, the super user's."""
        return self.setup.credentials

    @property
    def broker_keys(self) -> AclKeys | None:
        """What the broker's remoting port asks for: with authorization, or on 4.x, the super user's keys."""
        return AclKeys(*self.setup.credentials) if self.setup.broker_asks and self.setup.credentials else None

    @property
    def accounts(self) -> RocketmqAccounts:
        """Users and their rights.

        Raises:
            DevstackError: it was started without authorization.
        """
        keys = self.broker_keys
        if keys is None or not self.setup.authorization:
            raise DevstackError("this RocketMQ lets everybody do everything", hint="start it with authorization=True")
        return RocketmqAccounts(self.broker_port, keys)

    @property
    def exporter(self) -> str:
        """``host:port`` at which the broker's own metrics are scraped.

        Raises:
            DevstackError: it was started without its exporter.
        """
        if not self.setup.exporter:
            raise DevstackError("this RocketMQ exports no metrics", hint="start it with exporter=True")
        return f"{self.host}:{self.exporter_port}"

    @property
    def namesrv(self) -> str:
        """``host:port`` of the name server, for clients of the older remoting protocol."""
        return f"{self.host}:{self.namesrv_port}"

    @property
    def services(self) -> tuple[ServerProcess, ...]:
        """The processes."""
        return (self._namesrv, *self._brokers)

    @property
    def _brokers(self) -> tuple[ServerProcess, ...]:
        """The processes that hold broker and proxy, in the order in which they start."""
        return (self._proxy,) if self._broker is None else (self._broker, self._proxy)

    @property
    def pid(self) -> int | None:
        """Process id of the JVM with broker and proxy (in cluster mode, of that with the proxy)."""
        return self._proxy.pid

    @property
    def running(self) -> bool:
        """Whether the JVM with broker and proxy exists (in cluster mode, both)."""
        return all(process.running for process in self._brokers)

    def launch(self) -> None:
        """Start the processes without waiting for them."""
        if not self._namesrv.running:
            self._namesrv.start()
        if not self._brokers[0].running:
            self._brokers[0].start()

    def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """Wait until a message has gone round through the proxy.

        Raises:
            ServiceError: it did not within ``timeout`` seconds; holds the end of the log.
        """
        try:
            if self._broker is not None and not self._proxy.running:
                # A proxy of its own ends at once when no broker can hold its topics yet.
                until(
                    self._registered, timeout=timeout, alive=lambda: self._namesrv.running and self._brokers[0].running
                )
                self._proxy.start()
            until(self._ready, timeout=timeout, alive=lambda: self._namesrv.running and self.running)
        except DevstackError as error:
            culprit = next((process for process in self.services if not process.running), self._proxy)
            raise ServiceError(
                f"{culprit.name}: {error.message}",
                hint="it needs about 0.7 GB of memory",
                log=culprit.log_tail(),
            ) from error

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start what does not run, and wait until it is ready."""
        self.launch()
        self.wait_ready(timeout)

    def stop(self, timeout: float = 3.0) -> None:
        """End broker and proxy; messages, topics and consumer offsets are kept for the next start.

        RocketMQ's own orderly end is a row of fixed waits, 15 s and more. It gets ``timeout`` seconds to stop serving,
        then SIGKILL: what it has stored is in the page cache, and offsets were written within the last second.
        """
        for process in reversed(self._brokers):
            process.stop(timeout)

    def kill(self) -> None:
        """Crash broker and proxy (SIGKILL)."""
        for process in reversed(self._brokers):
            process.kill()

    def restart(self) -> None:
        """Stop, then start."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze broker and proxy: they accept connections (the kernel does) and never answer."""
        for process in reversed(self._brokers):
            process.pause()

    def resume(self) -> None:
        """Let them go on."""
        for process in reversed(self._brokers):
            process.resume()

    def create_topic(self, name: str | None = None, message_type: MessageType = "NORMAL", *, queues: int = 4) -> str:
        """Create a topic, wait until the proxy gives its route, and return its name (a fresh one when none is given).

        Raises:
            ServiceError: the broker refused, or the route did not appear.
        """
        name = name or f"T-{message_type}-{uuid.uuid4().hex[:12]}"
        topics.create_topic(self.broker_port, name, message_type=message_type, queues=queues, keys=self.broker_keys)
        try:
            until(lambda: self._has_route(name), timeout=_ROUTE_SECONDS, alive=lambda: self.running)
        except DevstackError as error:
            raise ServiceError(f"topic {name}: {error.message}", log=self._proxy.log_tail()) from error
        return name

    def create_group(self, name: str | None = None, *, fifo: bool = False, max_attempts: int = 16) -> str:
        """Create a consumer group and return its name (a fresh one when none is given).

        Args:
            name: letters, digits, ``%``, ``_`` and ``-``.
            fifo: deliver each message group's messages in order.
            max_attempts: deliveries after which a message goes to the dead-letter topic.

        Raises:
            ServiceError: the broker refused.
        """
        name = name or f"G-{uuid.uuid4().hex[:12]}"
        topics.create_group(self.broker_port, name, fifo=fifo, max_attempts=max_attempts, keys=self.broker_keys)
        return name

    def _registered(self) -> None:
        try:
            known = accepts(self.namesrv_port) and topics.has_route(self.namesrv_port, _BROKERS_OWN_TOPIC)
        except ServiceError as error:
            raise NotYet(error.message) from error
        if not known:
            raise NotYet("the name server does not know the broker yet")

    def _ready(self) -> None:
        if not accepts(self.port if self.setup.has_proxy else self.namesrv_port) or not accepts(self.broker_port):
            raise NotYet("it does not listen yet")
        try:
            topics.create_topic(self.broker_port, READY_NAME, message_type="NORMAL", queues=1, keys=self.broker_keys)
            topics.create_group(self.broker_port, READY_NAME, fifo=False, max_attempts=1, keys=self.broker_keys)
            self._has_route(READY_NAME)
        except ServiceError as error:
            raise NotYet(error.message) from error
        if self.setup.has_proxy:
            self._probe.round()
        else:
            self._remoting_probe.round()

    def _has_route(self, topic: str) -> None:
        # The name server first: the proxy caches that a topic does not exist.
        if not topics.has_route(self.namesrv_port, topic):
            raise NotYet("the name server has no route yet")
        if self.setup.has_proxy:
            self._probe.route(topic)


def _check_room(directory: Path) -> None:
    """Say at once what the broker would take minutes to fail of.

    Raises:
        DevstackError: the disk is too full: it writes about 200 MB, and takes no message on a disk that is 99 % full.
    """
    disk = shutil.disk_usage(directory)
    needed = max(_ROOM_BYTES, disk.total // 100)
    if disk.free < needed:
        raise DevstackError(
            f"the disk of {directory} has {disk.free / 1e6:.0f} MB free, RocketMQ needs {needed / 1e6:.0f} MB",
            hint="make room, or set TMPDIR to a directory on another disk",
        )
