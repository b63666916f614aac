"""Runs the rumqttd inside the package iotcore: ``python -m spanbridge.devstack.rumqttd CONFIG``."""

from __future__ import annotations

import logging
import sys

from iotcore import IotCoreBroker

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)  # it logs an ERROR for every packet
    IotCoreBroker(config_path=sys.argv[1]).run_forever()
