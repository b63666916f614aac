"""The admin HTTP server."""

from spanbridge.admin.pages import Metrics
from spanbridge.admin.server import AdminError, AdminServer

__all__ = ["AdminError", "AdminServer", "Metrics"]
