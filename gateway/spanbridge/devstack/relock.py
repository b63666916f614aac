"""Make a lock file of RocketMQ's jars anew: ``python -m spanbridge.devstack.relock VERSION``.

Needs Maven, which nothing else here does. Maven resolves the version conflicts between the servers (name server, and
proxy or, before 5.0, broker) once, for the runtime scope; from then on every machine gets exactly these files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from spanbridge.devstack.jars import lock_file

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>lock</groupId><artifactId>lock</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.rocketmq</groupId><artifactId>{server}</artifactId><version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.rocketmq</groupId><artifactId>rocketmq-namesrv</artifactId><version>{version}</version>
    </dependency>
  </dependencies>
</project>
"""


def resolve(version: str, maven: str) -> list[dict[str, str | int]]:
    """The jars that RocketMQ ``version`` needs at run time, sorted by path, each with its SHA-256 and size in bytes."""
    with tempfile.TemporaryDirectory(prefix="spanbridge-relock-") as scratch:
        pom = Path(scratch, "pom.xml")
        server = "rocketmq-broker" if version.startswith("4.") else "rocketmq-proxy"
        pom.write_text(_POM.format(version=version, server=server))
        out = Path(scratch, "jars")
        goal = [
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            "-Dmdep.useRepositoryLayout=true",
            f"-DoutputDirectory={out}",
        ]
        subprocess.run([maven, "-q", "-B", "-f", str(pom), *goal], check=True)
        return [
            {
                "path": jar.relative_to(out).as_posix(),
                "sha256": hashlib.sha256(jar.read_bytes()).hexdigest(),
                "size": jar.stat().st_size,
            }
            for jar in sorted(out.rglob("*.jar"))
        ]


def main(argv: list[str]) -> int:
    """Write the lock file; returns the process's exit code."""
    maven = shutil.which("mvn")
    if len(argv) != 1 or maven is None:
        print("usage: python -m spanbridge.devstack.relock VERSION   (needs mvn on the PATH)", file=sys.stderr)
        return 2
    jars = resolve(argv[0], maven)
    lines = ",\n    ".join(json.dumps(jar) for jar in jars)
    lock = lock_file(argv[0])
    lock.write_text(f'{{\n  "rocketmq": {json.dumps(argv[0])},\n  "jars": [\n    {lines}\n  ]\n}}\n')
    print(f"{len(jars)} jars, {sum(int(jar['size']) for jar in jars) / 1e6:.1f} MB -> {lock}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
