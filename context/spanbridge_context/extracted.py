"""What every extraction returns."""

from collections import namedtuple

TYPE_CHECKING = False  # the name is enough for a type checker; ``typing`` is neither small nor on MicroPython
if TYPE_CHECKING:
    from typing import NamedTuple

    from .context import TraceContext

    class Extracted(NamedTuple):
        """What a carrier held. ``problem`` is one of ``PROBLEMS`` or None; a context may come with a problem."""

        context: TraceContext | None
        problem: str | None

else:
    Extracted = namedtuple("Extracted", ("context", "problem"))  # noqa: PYI024
