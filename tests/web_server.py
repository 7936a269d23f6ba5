"""A web server on loopback that serves a folder, and fails in the ways that servers fail."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class WebServer:
    """How the server behaves, and which requests it got.

    Parameters
    ----------
    folder
        What it serves.
    ranges
        Whether it supports range requests: ``yes``, ``no`` (and says so), or ``ignored`` (says
        yes, and sends the whole file).
    sends_size
        Whether answers have a Content-Length.
    statuses
        The status that a file gets in place of its content, by name.
    failures
        How many of the next requests for a file get status 500.
    broken_off
        How many of the next answers for a file break off half-way.
    gone_after
        After how many requests a file no longer exists.
    """

    folder: Path
    ranges: str = "yes"
    sends_size: bool = True
    statuses: dict[str, int] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    broken_off: Counter[str] = field(default_factory=Counter)
    gone_after: dict[str, int] = field(default_factory=dict)
    #: Method, file name and Range header of each request.
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def requested_ranges(self, name: str) -> list[tuple[int, int]]:
        """First and last byte of each range request for a file."""
        headers = [header or "" for _, requested, header in self.requests if requested == name]
        matches = [re.fullmatch(r"bytes=(\d+)-(\d+)", header) for header in headers]
        return [(int(match[1]), int(match[2])) for match in matches if match]

    def status_of(self, name: str) -> int | None:
        """The error status that the next request for a file gets, if any."""
        if name in self.statuses:
            return self.statuses[name]
        if not (self.folder / name).is_file():
            return 404
        if self.failures[name] > 0:
            self.failures[name] -= 1
            return 500
        if name in self.gone_after:
            self.gone_after[name] -= 1
            return 404 if self.gone_after[name] < 0 else None
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: WebServer

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def _answer(self, *, has_body: bool) -> None:
        name = self.path.partition("?")[0].lstrip("/")
        requested_range = self.headers.get("Range")
        self.state.requests.append((self.command, name, requested_range))
        status = self.state.status_of(name)
        if status is not None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = self._send_headers((self.state.folder / name).read_bytes(), requested_range)
        if has_body:
            self._send_body(name, data)

    def _send_headers(self, data: bytes, requested_range: str | None) -> bytes:
        """Send status and headers; return the body."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", requested_range or "")
        if match and self.state.ranges == "yes":
            start, stop = int(match[1]), min(int(match[2] or len(data)) + 1, len(data))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            data = data[start:stop]
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "none" if self.state.ranges == "no" else "bytes")
        if self.state.sends_size:
            self.send_header("Content-Length", str(len(data)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        return data

    def _send_body(self, name: str, data: bytes) -> None:
        try:
            if self.state.broken_off[name] > 0 and len(data) > 1:
                self.state.broken_off[name] -= 1
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                self.connection.close()
            else:
                self.wfile.write(data)
        except OSError:
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Ignore clients that leave early: some tests want them to."""


@contextmanager
def serve(server: WebServer) -> Iterator[WebServer]:
    """Run a server until the block ends."""
    handler = type("Handler", (_Handler,), {"state": server})
    http = _Server(("127.0.0.1", 0), handler)
    # The default interval of half a second would be added to every test.
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
