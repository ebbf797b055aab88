"""A proxy in front of an S3 server that counts requests and bytes, so that nobody has to believe a tool's own count."""

from __future__ import annotations

import contextlib
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))

from servers import Server


class Counting(BaseHTTPRequestHandler):
    """Passes everything on and remembers what it was."""

    protocol_version = "HTTP/1.1"
    target = ""
    counts: ClassVar[Counter[str]] = Counter()
    moved: ClassVar[Counter[str]] = Counter()
    """Bytes of the bodies, `to` and `from` the client."""
    lock = threading.Lock()

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""

    def forward(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        # A listing asks a bucket, not an object.
        listing = self.command == "GET" and "/" not in parts.path.strip("/")
        kind = "LIST" if listing else "COPY" if self.headers.get("x-amz-copy-source") else self.command
        with self.lock:
            self.counts[kind] += 1
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length) if length else None
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
        request = urllib.request.Request(self.target + self.path, data=body, headers=headers, method=self.command)  # noqa: S310
        try:
            answer = urllib.request.urlopen(request, timeout=60)  # noqa: S310 - a loopback address of our own
        except urllib.error.HTTPError as refusal:
            answer = refusal
        with answer:
            content = answer.read()
            with self.lock:
                self.moved.update({"to": len(content), "from": length})
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                    self.send_header(name, value)
            size = answer.headers.get("content-length", "0") if self.command == "HEAD" else str(len(content))
            self.send_header("content-length", size)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815 - names of http.server


@contextlib.contextmanager
def counted(server: Server) -> Iterator[Server]:
    """A server that looks the same and counts."""
    Counting.target = server.endpoint
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield Server("counted", f"http://127.0.0.1:{proxy.server_port}")
    finally:
        proxy.shutdown()
        proxy.server_close()
