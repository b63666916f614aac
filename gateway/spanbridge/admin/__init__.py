"""The admin HTTP server.

Importing this package is cheap: aiohttp (some 15 MiB) is loaded by :meth:`AdminServer.start`.
"""

from spanbridge.admin.pages import Metrics
from spanbridge.admin.server import AdminError, AdminServer

__all__ = ["AdminError", "AdminServer", "Metrics"]
