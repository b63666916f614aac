"""The protobuf messages that rocketmq-python-client ships, without the client around them.

``import rocketmq`` pulls in the whole client: 10 MiB resident (measured on CPython 3.11) and a log file opened in the
user's home. The two generated modules need neither, so the package's ``__init__`` files are stepped around while they
load and left untouched for whoever imports the client later in the same process (protobuf's descriptor pool accepts
the same file twice and hands out the same classes).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from spanbridge.installing import install_command

_PACKAGES = ("rocketmq", "rocketmq.grpc_protocol")


def _load() -> tuple[Any, Any]:
    if all(name in sys.modules for name in _PACKAGES):
        return _import_both()
    spec = importlib.util.find_spec("rocketmq")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"the RocketMQ adapter needs rocketmq-python-client: {install_command('gateway')}")
    root = Path(next(iter(spec.submodule_search_locations)))
    kept = {name: sys.modules.get(name) for name in _PACKAGES}
    for name, path in zip(_PACKAGES, (root, root / "grpc_protocol"), strict=True):
        bare = ModuleType(name)
        bare.__path__ = [str(path)]
        sys.modules[name] = bare
    try:
        return _import_both()
    finally:
        for name, module in kept.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def _import_both() -> tuple[Any, Any]:
    definition = importlib.import_module("rocketmq.grpc_protocol.definition_pb2")
    return definition, importlib.import_module("rocketmq.grpc_protocol.service_pb2")


definition: Any
service: Any
definition, service = _load()

SERVICE = "/apache.rocketmq.v2.MessagingService/"
"""Prefix of the method paths (apache/rocketmq-apis, service.proto)."""

NORMAL = 1
FIFO = 2
DELAY = 3
"""Values of ``MessageType`` (definition.proto) that a gateway sends."""


def type_name(value: int) -> str:
    """The name of a ``MessageType``, also of one that is newer than the stubs."""
    return definition.MessageType.Name(value) if value in definition.MessageType.values() else f"TYPE_{value}"


def code_name(value: int) -> str:
    """The name of a response ``Code``, also of one that is newer than the stubs."""
    return definition.Code.Name(value) if value in definition.Code.values() else f"CODE_{value}"
