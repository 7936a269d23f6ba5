"""A web server on loopback that gives files as asked, or misbehaves in the ways that servers do."""

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
    """What the server was asked for, and how it is to behave.

    ``ranges`` is ``yes``, ``no`` (says so), or ``ignored`` (promises them, and sends all).
    ``answers`` is which status a name gets in place of its content; ``stumbles`` how many times a
    name gets 500 before it is served, once reading has begun; ``cut`` how many answers break off.
    """

    folder: Path
    ranges: str = "yes"
    sizes: bool = True
    answers: dict[str, int] = field(default_factory=dict)
    stumbles: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    gone_after: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def ranged(self, name: str) -> list[tuple[int, int]]:
        """The ranges of one file that were asked for."""
        found = [re.fullmatch(r"bytes=(\d+)-(\d+)", r or "") for _, n, r in self.asked if n == name]
        return [(int(match[1]), int(match[2])) for match in found if match]


def _handler(state: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            name = self.path.partition("?")[0].lstrip("/")
            wanted = self.headers.get("Range")
            state.asked.append((self.command, name, wanted))
            path = state.folder / name
            status = state.answers.get(name)
            if status is None and not path.is_file():
                status = 404
            if status is None and state.stumbles[name] > 0:
                state.stumbles[name] -= 1
                status = 500
            if status is None and name in state.gone_after:
                state.gone_after[name] -= 1
                status = 404 if state.gone_after[name] < 0 else None
            if status is not None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = path.read_bytes()
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
            if match and state.ranges == "yes":
                start, stop = int(match[1]), min(int(match[2] or len(data)) + 1, len(data))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
                data = data[start:stop]
            else:
                self.send_response(200)
            self.send_header("Accept-Ranges", "none" if state.ranges == "no" else "bytes")
            if state.sizes:
                self.send_header("Content-Length", str(len(data)))
            else:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            if not body:
                return
            try:
                if state.cut[name] > 0 and len(data) > 1:
                    state.cut[name] -= 1
                    self.wfile.write(data[: len(data) // 2])
                    self.close_connection = True
                    self.connection.close()
                else:
                    self.wfile.write(data)
            except OSError:
                self.close_connection = True

    return Handler


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that leave early are what is tested."""


@contextmanager
def serving(folder: Path, **behaviour: object) -> Iterator[WebServer]:
    """Serve a folder until the block ends."""
    state = WebServer(folder, **behaviour)  # type: ignore[arg-type]
    http = _Quiet(("127.0.0.1", 0), _handler(state))
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
