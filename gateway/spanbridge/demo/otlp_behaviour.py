"""How an OTLP receiver answers when it is told not to behave well."""

from __future__ import annotations

from dataclasses import dataclass, replace

from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What to do with requests: refuse with both a gRPC code and an HTTP status, hang, or accept in part.

    ``times`` requests are treated so, all when None. ``retry_after`` is in seconds. ``rejected`` is the number that a
    partial success claims to have rejected.
    """

    grpc_code: str | None = None
    http_status: int = 200
    message: str = ""
    retry_after: float | None = None
    hang: bool = False
    rejected: int = 0
    times: int | None = None

    @classmethod
    def refuse(
        cls, grpc_code: str, http_status: int, *, retry_after: float | None = None, times: int | None = None
    ) -> Behaviour:
        """Refuse, e.g. ``refuse("RESOURCE_EXHAUSTED", 429, retry_after=1)``."""
        return cls(
            grpc_code=grpc_code, http_status=http_status, message="told to refuse", retry_after=retry_after, times=times
        )

    @property
    def accepts(self) -> bool:
        """Whether the request is kept."""
        return self.grpc_code is None and self.http_status == 200 and not self.hang

    def after_one(self) -> Behaviour:
        """The behaviour for the next request."""
        if self.times is None:
            return self
        return replace(self, times=self.times - 1) if self.times > 1 else OK

    def retry_info(self) -> tuple[tuple[str, bytes], ...]:
        """Trailing metadata that asks to retry later (google.rpc.RetryInfo)."""
        delay = Duration()
        delay.FromNanoseconds(int((self.retry_after or 0) * 1e9))
        return (("google.rpc.retryinfo-bin", RetryInfo(retry_delay=delay).SerializeToString()),)


OK = Behaviour()
