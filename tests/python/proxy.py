"""A server between the program and an S3 server: it records every request, answers some itself, and tells of others.

Requests pass as they are, `Host` with them, so that servers that check signatures are content.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from servers import Server

THROTTLED = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


@dataclass(frozen=True)
class Request:
    """One request that arrived."""

    number: int
    """From 0, in the order of arrival."""
    method: str
    path: str
    """Bucket and key, decoded, without the leading `/`."""
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def kind(self) -> str:
        """What it asks for, in the words of S3's documentation where those matter here."""
        names = self.query.keys()
        if self.method == "POST":
            return "begin" if "uploads" in names else "complete" if "uploadId" in names else "post"
        if self.method == "PUT" and "partNumber" in names:
            return "copy part" if "x-amz-copy-source" in self.headers else "send part"
        for name in ("tagging", "acl", "ownershipControls", "versioning"):
            if name in names:
                return f"{self.method.lower()} {name}"
        return self.method.lower()


@dataclass(frozen=True)
class Answer:
    """What the proxy says itself."""

    status: int
    body: bytes = b""

    @classmethod
    def error(cls, status: int, code: str) -> Answer:
        """A refusal as S3 writes it."""
        return cls(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())


@dataclass
class Proxy:
    """A running proxy."""

    server: Server
    """What the program is told to use."""
    upstream: str
    requests: list[Request] = field(default_factory=list)
    decide: Callable[[Request], Answer | None] = lambda request: None
    """Asked before a request is passed on; an answer is given in place of the server's."""
    notice: Callable[[Request, int], None] = lambda request, status: None
    """Told of the server's status before the program is."""
    alter: Callable[[Request, int, bytes], bytes] = lambda request, start, content: content
    """Changes what is sent of an object's content from the byte `start` on."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def kinds(self, *kinds: str) -> list[Request]:
        """The requests of these kinds so far."""
        return [request for request in self.requests if request.kind in kinds]

    def forget(self) -> None:
        """Forgets the requests so far, and what was to be decided and noticed."""
        self.decide = lambda request: None
        self.notice = lambda request, status: None
        self.alter = lambda request, start, content: content
        self.requests.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: Proxy

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=120)

    def finish(self) -> None:
        self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def handle_one_request(self) -> None:
        # The program may be killed at any moment.
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(target.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        proxy = self.proxy
        with proxy.lock:
            request = Request(len(proxy.requests), self.command, unquote(target.path).lstrip("/"), query, headers)
            proxy.requests.append(request)
        answer = proxy.decide(request)
        if answer is not None:
            self.reply(answer.status, [("Content-Type", "application/xml")], answer.body)
            return
        kept = [(name, value) for name, value in self.headers.items() if name.lower() != "connection"]
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in kept:
            self.upstream.putheader(name, value)
        self.upstream.endheaders(body or None)
        response = self.upstream.getresponse()
        content = response.read()
        dropped = {"connection", "transfer-encoding", "content-length", "date", "server"}
        said = [(name, value) for name, value in response.getheaders() if name.lower() not in dropped]
        proxy.notice(request, response.status)
        if request.kind == "get" and response.status in (200, 206):
            place = re.match(r"bytes (\d+)-", response.getheader("Content-Range") or "bytes 0-")
            content = proxy.alter(request, int(place[1]) if place else 0, content)
        self.reply(response.status, said, content, response.getheader("Content-Length"))

    def reply(self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", (length or "0") if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve  # noqa: N815 - the base class's names

    def log_message(self, *args: object) -> None:
        pass


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextlib.contextmanager
def before(server: Server) -> Iterator[Proxy]:
    """Runs a proxy before `server` until the block is left."""
    proxy = Proxy(server, server.endpoint)
    handler = type("_Bound", (_Handler,), {"proxy": proxy})
    listener = _Listener(("127.0.0.1", 0), handler)
    proxy.server = replace(server, endpoint=f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def throttling(share: float, seed: int) -> Callable[[Request], Answer | None]:
    """Answers a share of all requests with 503, the same ones each time as far as their order is."""
    import random

    def decide(request: Request) -> Answer | None:
        unlucky = random.Random(f"{seed} {request.number}").random() < share
        return Answer(503, THROTTLED) if unlucky else None

    return decide
