"""Runs one of the MQTT brokers that are Python packages: ``python -m spanbridge.devstack.mqtt_server KIND CONFIG``."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path


def _rumqttd(config: str) -> None:
    from iotcore import IotCoreBroker

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # rumqttd has no way to stop it but to end the process
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)  # it logs an ERROR for every packet
    IotCoreBroker(config_path=config).run_forever()


def _amqtt(config: str) -> None:
    from amqtt.broker import Broker

    settings = json.loads(Path(config).read_text())

    async def serve() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        broker = Broker(settings)
        await broker.start()
        await stop.wait()
        await broker.shutdown()

    logging.basicConfig(level=logging.ERROR)
    import uvloop

    uvloop.run(serve())


if __name__ == "__main__":
    {"rumqttd": _rumqttd, "amqtt": _amqtt}[sys.argv[1]](sys.argv[2])
