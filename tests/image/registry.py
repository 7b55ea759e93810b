"""A registry with one image, as much of it as pulling takes: the distribution protocol over HTTP, from an OCI layout."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Registry:
    """`asked` are the paths that were fetched; with `login` nobody else gets in."""

    def __init__(self, layout: Path, repository: str, login: tuple[str, str] | None) -> None:
        self.asked: list[str] = []
        self._blobs = layout / "blobs" / "sha256"
        self._manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
        self._repository = repository
        self._token = None if login is None else base64.b64encode(":".join(login).encode()).decode()

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        if self._token is not None and authorization != f"Basic {self._token}":
            return 401, {"WWW-Authenticate": 'Basic realm="test"'}, b"{}"
        self.asked.append(path)
        if path in ("/v2", "/v2/"):
            return 200, {}, b"{}"
        kind, _, name = path.removeprefix(f"/v2/{self._repository}/").partition("/")
        digest = self._manifest if kind == "manifests" and not name.startswith("sha256:") else name
        file = self._blobs / digest.removeprefix("sha256:")
        if kind not in ("manifests", "blobs") or not file.is_file():
            return 404, {}, b"{}"
        media = "application/vnd.oci.image.manifest.v1+json" if kind == "manifests" else "application/octet-stream"
        return 200, {"Content-Type": media, "Docker-Content-Digest": digest}, file.read_bytes()


@contextmanager
def serving(layout: Path, repository: str, login: tuple[str, str] | None = None) -> Iterator[tuple[Registry, str]]:
    """The registry and its host with its port."""
    registry = Registry(layout, repository, login)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = registry.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield registry, f"localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
