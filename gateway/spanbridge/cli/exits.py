"""Exit codes (docs/operations.md). A supervisor restarts on 1 and must not on 2: the same start would fail again."""

from __future__ import annotations

from typing import Final

OK: Final = 0
"""Done, or stopped in order by SIGTERM."""
FAILURE: Final = 1
"""Something failed at run time. Another try may work."""
USAGE: Final = 2
"""Wrong command line, configuration or OTEL_* variable, or a missing package. Somebody has to mend it first."""
BEHIND: Final = 3
"""`spanbridge lag`: a consumer group is further behind than allowed."""
INTERRUPTED: Final = 130
"""Ctrl-C before the gateway was up (128 + SIGINT, as shells report it)."""
