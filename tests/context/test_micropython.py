"""The codec runs on MicroPython as it is: the same files, the same vectors, the device example.

MicroPython is the npm package of its WebAssembly build, run by Node. It is fetched once into the user's cache; without
Node, npm or the package the tests are skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from spanbridge_context import extract_user_properties, split_topic

ROOT = Path(__file__).parents[2]
PACKAGE = "@micropython/micropython-webassembly-pyscript"
VERSION = "1.27.0"
MiB = 1024 * 1024


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "spanbridge" / f"micropython-{VERSION}"


@pytest.fixture(scope="module")
def interpreter() -> Path:
    """The package's main file. Skips by name what the machine does not have."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("MicroPython's WebAssembly build needs node and npm on the PATH")
    main = cache_directory() / "node_modules" / PACKAGE / "micropython.mjs"
    if not main.exists():
        main.parents[3].mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", main.parents[3], f"{PACKAGE}@{VERSION}"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm could not fetch {PACKAGE} within a minute")
        if result.returncode != 0 or not main.exists():
            pytest.skip(f"npm could not fetch {PACKAGE}")
    return main


def codec_files() -> dict[str, str]:
    """The codec without its OpenTelemetry module, as it is copied to a device."""
    folder = ROOT / "context" / "spanbridge_context"
    return {
        f"spanbridge_context/{path.name}": path.read_text("utf-8")
        for path in folder.glob("*.py")
        if path.name != "otel.py"
    }


def run(interpreter: Path, program: str, files: dict[str, str] | None = None, heap: int = MiB) -> str:
    given = json.dumps({"files": codec_files() | (files or {}), "program": program})
    script = Path(__file__).with_name("micropython.mjs")
    result = subprocess.run(
        ["node", script, interpreter, str(heap)], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_it_really_is_micropython(interpreter: Path) -> None:
    assert run(interpreter, "import sys; print(sys.implementation.name)").strip() == "micropython"


# MicroPython's own json reads NaN, a trailing comma and the like; a device trusts the objects it is sent that far.
LENIENT = {
    "json-payload": [
        "invalid JSON: something behind",
        "invalid JSON: no commas",
        "invalid JSON: trailing comma",
        "invalid JSON: control character",
        "invalid JSON: not a number",
    ]
}


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "docs" / "vectors").glob("*.json")))
def test_vectors_hold(interpreter: Path, name: str) -> None:
    files = {
        "vector_checks.py": Path(__file__).with_name("vector_checks.py").read_text("utf-8"),
        "vectors.json": (ROOT / "docs" / "vectors" / f"{name}.json").read_text("utf-8"),
    }
    program = f"""
import json
import vector_checks
count, failures = vector_checks.check_file({name!r}, json.load(open("/vectors.json")), {LENIENT.get(name, [])!r})
print(json.dumps([count, failures]))
"""
    count, failures = json.loads(run(interpreter, program, files, heap=16 * MiB))
    assert failures == []
    vectors = json.loads(files["vectors.json"])
    assert count == sum(len(part) for part in vectors.values() if isinstance(part, list)) - len(LENIENT.get(name, []))


def test_new_contexts_differ_and_cannot_be_changed(interpreter: Path) -> None:
    program = """
from spanbridge_context import TraceContext
contexts = {TraceContext.new() for _ in range(100)}
context = contexts.pop()
try:
    context.trace_id = "0" * 32
    print("changed")
except AttributeError:
    print(len(contexts), context.child().trace_id == context.trace_id, context.sampled, TraceContext.new(False).flags)
"""
    assert run(interpreter, program).split() == ["99", "True", "True", "2"]


def test_codec_fits_a_small_heap(interpreter: Path) -> None:
    program = """
import gc
gc.collect()
before = gc.mem_alloc()
import spanbridge_context
gc.collect()
print(gc.mem_alloc() - before)
"""
    used = int(run(interpreter, program, heap=192 * 1024))
    assert 0.9 < used / (said("RAM after") * 1024) < 1.05


def said(row: str) -> int:
    """KiB of the codec as source, as docs/micropython.md says."""
    page = (ROOT / "docs" / "micropython.md").read_text("utf-8")
    return int(re.search(rf"^\| {row}[^|]*\| (\d+) KiB", page, re.MULTILINE)[1])


def test_the_page_says_how_much_flash_it_takes() -> None:
    size = sum(len(text.encode()) for text in codec_files().values())
    assert 0.9 < size / (said("flash") * 1024) < 1.05


UMQTT = """
import json

class MQTTClient:
    def __init__(self, client_id, server):
        pass

    def connect(self):
        pass

    def publish(self, topic, msg, retain=False, qos=0):
        print(json.dumps([topic, msg, qos]))

    def disconnect(self):
        pass
"""

MQTT_AS = """
import json

config = {"server": None, "mqttv5": False}

class MQTTClient:
    def __init__(self, given):
        assert given["server"] and given["mqttv5"]

    async def connect(self):
        pass

    async def publish(self, topic, msg, retain=False, qos=0, properties=None):
        (pair,) = properties[0x26].items()  # it sends the first one only
        print(json.dumps([topic, msg, qos, pair]))

    async def disconnect(self):
        pass
"""


def published(interpreter: Path, program: str, files: dict[str, str]) -> list[list]:
    """What an example gave to a client with the interface of the real one."""
    examples = {path.name: path.read_text("utf-8") for path in (ROOT / "examples" / "micropython").glob("*.py")}
    return [json.loads(line) for line in run(interpreter, program, examples | files).splitlines()]


def test_example_on_umqtt_publishes_what_a_gateway_reads(interpreter: Path) -> None:
    program = "import device_v311\ndevice_v311.main(count=2, pause=0)"
    messages = published(interpreter, program, {"umqtt/simple.py": UMQTT})
    assert len(messages) == 2
    for topic, payload, qos in messages:
        plain, context, problem = split_topic(topic)
        assert (plain, qos, problem) == ("site/a12/dev/7/temperature", 1, None)
        assert json.loads(payload)["unit"] == "C"
        assert context is not None
        assert context.sampled


def test_example_on_mqtt_as_publishes_what_a_gateway_reads(interpreter: Path) -> None:
    program = "import device_v5\ndevice_v5.run(device_v5.main(count=2, pause=0))"  # this build has no asyncio.run
    messages = published(interpreter, program, {"mqtt_as.py": MQTT_AS})
    assert len(messages) == 2
    for topic, payload, qos, pair in messages:
        context, problem = extract_user_properties([tuple(pair)])
        assert (topic, qos, problem) == ("site/a12/dev/7/temperature", 1, None)
        assert json.loads(payload)["unit"] == "C"
        assert context is not None
        assert context.sampled
