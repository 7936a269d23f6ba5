"""A server on loopback that answers like Kaggle's download endpoint and its storage.

The real kagglehub client reaches it as the HTTP proxy of an API host without TLS. The client asks
the API for a file by POST, is redirected to a storage URL, and downloads that in ranges, with the
MD5 in ``X-Goog-Hash``.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class KaggleServer:
    """What the server holds, how it fails, and which requests it got."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.status = 302
        self.wrong_md5 = False
        self.break_after: int | None = None
        self.port = 0

    def serve_folder(self, folder: Path) -> None:
        for path in folder.iterdir():
            self.files[path.name] = path.read_bytes()

    def serve_zipped(self, name: str) -> None:
        """Serve one file like Kaggle serves large ones: zipped, under another name."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, self.files.pop(name))
        self.files[f"{name}.zip"] = buffer.getvalue()


def _handler(server: KaggleServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = body.get("fileName", "")
            server.requests.append(f"api {name}")
            stored_name = f"{name}.zip" if f"{name}.zip" in server.files else name
            is_our_data_set = (
                urlsplit(self.path).path.endswith("/datasets.DatasetApiService/DownloadDataset")
                and body["ownerSlug"] == "rounakbanik"
                and body["datasetSlug"] == "the-movies-dataset"
                and int(body["datasetVersionNumber"]) == 7
            )
            if server.status != 302:
                self._answer(server.status, b"{}")
            elif not is_our_data_set or stored_name not in server.files:
                self._answer(404, b"{}")
            else:
                self.send_response(302)
                self.send_header("Location", f"http://storage.localhost/bucket/{stored_name}")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def do_GET(self) -> None:
            name = urlsplit(self.path).path.rsplit("/", 1)[-1]
            content = server.files[name]
            server.requests.append(f"storage {name} {self.headers.get('Range', '')}".strip())
            start = 0
            if match := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
                start = int(match[1])
            digest = hashlib.md5(b"other" if server.wrong_md5 else content).digest()
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("X-Goog-Hash", f"md5={base64.b64encode(digest).decode()}")
            self.end_headers()
            if server.break_after is not None and not start:
                self.wfile.write(content[: server.break_after])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(content[start:])

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


@contextmanager
def kaggle_server(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[KaggleServer]:
    """Run the server, with the real client pointed at it and an empty cache."""
    state = KaggleServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.port = http.server_address[1]
    for name, value in environment(state.port, cache).items():
        monkeypatch.setenv(name, value)
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def environment(port: int, cache: Path) -> dict[str, str]:
    """Return the settings that lead kagglehub, and the library it uses, to the server."""
    proxy = f"http://127.0.0.1:{port}"
    return {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "HTTP_PROXY": proxy,
        "http_proxy": proxy,
        "NO_PROXY": "",
        "no_proxy": "",
        "KAGGLEHUB_CACHE": str(cache),
        "KAGGLE_CONFIG_DIR": str(cache / "no-credentials"),
        "TQDM_DISABLE": "1",
    }
