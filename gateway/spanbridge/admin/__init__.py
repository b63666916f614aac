"""The admin HTTP server."""

from spanbridge.admin.pages import Liveness, Metrics
from spanbridge.admin.profiles import Profiles
from spanbridge.admin.server import AdminError, AdminServer

__all__ = ["AdminError", "AdminServer", "Liveness", "Metrics", "Profiles"]
