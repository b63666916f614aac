"""The gateway's code that is measured: this checkout's, or another commit's from a worktree of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SOURCES = ("gateway", "context")


class RevisionError(Exception):
    """The revision does not exist, or its gateway cannot be run with this interpreter."""


@dataclass(frozen=True, slots=True)
class Code:
    """A gateway's code. ``rev`` is the commit, empty for this checkout; ``root`` is where it lies."""

    rev: str
    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make this interpreter import this code, whatever is installed."""
        return {"PYTHONPATH": ":".join(str(self.root / source) for source in _SOURCES)}

    def command(self, *arguments: str) -> list[str]:
        """The ``spanbridge`` command of this code."""
        return [sys.executable, "-P", "-c", "from spanbridge.cli import main; main()", *arguments]


THIS = Code("", ROOT)


@contextmanager
def checked_out(rev: str) -> Iterator[Code]:
    """Another commit's code in a temporary worktree, which is removed again.

    :raises RevisionError: there is no such commit, or its gateway cannot be imported.
    """
    commit = _git("rev-parse", "--verify", "--short", f"{rev}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="spanbridge-bench-") as directory:
        root = Path(directory) / commit
        _git("worktree", "add", "--detach", "--quiet", str(root), commit)
        try:
            code = Code(commit, root)
            _prepare(code)
            yield code
        finally:
            _git("worktree", "remove", "--force", str(root))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RevisionError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _prepare(code: Code) -> None:
    """Compile it, so that its first start is no dearer than the others, and see that it is what gets imported."""
    sources = [str(code.root / source) for source in _SOURCES]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *sources], capture_output=True, check=False)
    script = "import spanbridge, spanbridge_context; print(spanbridge.__file__); print(spanbridge_context.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], env=code.environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RevisionError(f"{code.rev}: {(done.stderr.strip().splitlines() or ['it cannot be imported'])[-1]}")
    if not all(Path(line).is_relative_to(code.root.resolve()) for line in done.stdout.split()):
        raise RevisionError(f"{code.rev}: another spanbridge comes first on the module path")
