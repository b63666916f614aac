"""The spool: messages on disk while RocketMQ is away.

``disk`` is the file layer, ``records`` the bytes, ``store`` the numbered records of a directory, ``segments`` the
thread that they live on.
"""

from spanbridge.spool.segments import SegmentSpool, SpoolOptions

__all__ = ["SegmentSpool", "SpoolOptions"]
