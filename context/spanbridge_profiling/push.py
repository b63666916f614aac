"""Where an instrumented process's profiles go: an OTLP receiver or a Pyroscope server over HTTP, or files."""

from __future__ import annotations

import gzip
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from spanbridge_profiling.otlp import write_otlp
from spanbridge_profiling.pprof import write_pprof
from spanbridge_profiling.profile import Profile
from spanbridge_profiling.pyroscope import PATH, write_push
from spanbridge_profiling.settings import Settings

Write = Callable[[Profile], None]
"""Takes a profile to where it belongs.

:raises OSError: that was not possible. The message says why, without secrets.
"""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A receiver is where it was said to be: headers with secrets go nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def otlp_writer(settings: Settings, resource: Mapping[str, object], version: str) -> Write:
    """Send profiles to the OTLP receiver.

    :raises OSError: the certificate cannot be read.
    """
    headers = {"Content-Type": "application/x-protobuf", **dict(settings.headers)}
    if settings.gzip:
        headers["Content-Encoding"] = "gzip"
    post = poster(settings.endpoint, headers, settings.timeout, settings.certificate)

    def write(profile: Profile) -> None:
        body = write_otlp(profile, resource, version=version)
        post(gzip.compress(body, 6) if settings.gzip else body)

    return write


def pyroscope_writer(settings: Settings, resource: Mapping[str, object]) -> Write:
    """Send profiles to a Pyroscope server."""
    post = pyroscope_poster(settings.pyroscope, dict(settings.pyroscope_headers), settings.timeout)
    return lambda profile: post(write_push(profile, resource))


def pyroscope_poster(url: str, headers: Mapping[str, str], timeout: float) -> Callable[[bytes], None]:
    """Posts ``PushRequest`` bodies to a Pyroscope server; see :func:`poster`."""
    return poster(url.rstrip("/") + PATH, {"Content-Type": "application/json", **headers}, timeout)


def poster(
    url: str, headers: Mapping[str, str], timeout: float, certificate: str | None = None
) -> Callable[[bytes], None]:
    """Posts bodies to a URL. Blocks until there is an answer, ``timeout`` seconds at most.

    What it returns raises :class:`OSError` where that was not possible.

    :raises OSError: the certificate cannot be read.
    """
    context = ssl.create_default_context(cafile=certificate)
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))
    given = {"User-Agent": "spanbridge", **headers}

    def post(body: bytes) -> None:
        # http and https only, as the settings see to it
        request = urllib.request.Request(url, body, given, method="POST")  # noqa: S310
        try:
            with opener.open(request, timeout=timeout) as answer:
                answer.read(65536)
        except urllib.error.HTTPError as error:
            with error:
                raise OSError(f"the receiver answered {error.code}") from None
        except urllib.error.URLError as error:
            raise OSError(str(error.reason)) from None
        except http.client.HTTPException as error:
            raise OSError(f"the receiver's answer is no HTTP ({type(error).__name__})") from None

    return post


def file_writer(settings: Settings) -> Write:
    """Write each profile as a pprof file, by process and time. A file appears complete or not at all."""

    def write(profile: Profile) -> None:
        os.makedirs(settings.directory, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(profile.started_ns / 1e9))
        path = os.path.join(settings.directory, f"cpu-{os.getpid()}-{stamp}.pb.gz")
        with open(f"{path}.part", "wb") as file:
            file.write(write_pprof(profile))
        os.replace(f"{path}.part", path)

    return write
