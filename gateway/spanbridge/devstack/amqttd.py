"""Runs amqtt, an MQTT v3.1.1 broker in Python: ``python -m spanbridge.devstack.amqttd CONFIG``.

CONFIG is a JSON file with amqtt's own settings. It is read here rather than by amqtt's command, which wants YAML, logs
at level INFO, and has no authentication that leaves an unnamed client its session.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from amqtt.broker import Broker
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session


class Authentication(BaseAuthPlugin):  # type: ignore[misc]
    """Lets in everybody, or who knows the one name and password.

    amqtt's own ``AnonymousAuthPlugin`` marks sessions as anonymous, and amqtt forgets those at the end of the
    connection, with Clean Session 0 as well (against MQTT 3.1.1, section 3.1.2.4).
    """

    @dataclass
    class Config:
        """What amqtt reads from the settings."""

        username: str | None = None
        password: str = ""

    async def authenticate(self, *, session: Session) -> bool:
        """Whether this CONNECT is accepted."""
        if self.config.username is None:
            return True
        given = f"{session.username}\0{session.password}".encode()
        return hmac.compare_digest(given, f"{self.config.username}\0{self.config.password}".encode())


async def _serve(settings: dict[str, object]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    broker = Broker(settings)
    await broker.start()
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("transitions").setLevel(logging.ERROR)
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
