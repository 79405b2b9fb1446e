"""A GitHub of its own: the requests that the action makes, answered over HTTP by a server in this process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 2  # of lists, which GitHub hands out in pages of 100


@dataclass
class Repository:
    """files: by path and ref. comments, pulls: as GitHub's API has them. may_write: whether the token may."""

    address: str = ""
    may_write: bool = True
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    comments: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def add(self, body: str, by: str = "Bot") -> None:
        number = len(self.comments) + 1
        self.comments.append({"id": number, "body": body, "user": {"type": by}})

    def answer(self, method: str, path: str, query: dict[str, str], sent: Any) -> tuple[int, Any]:
        match method, path.removeprefix("/repos/owner/name").strip("/").split("/"):
            case "GET", ["contents", *parts]:
                content = self.files.get((unquote("/".join(parts)), query["ref"]))
                return (404, {}) if content is None else (200, content)
            case "GET", ["issues", _, "comments"]:
                return 200, self._page(self.comments, query)
            case "GET", ["pulls"]:
                here = [each for each in self.pulls if each["head"]["label"] == query["head"]]
                return 200, self._page(here, query)
            case (("POST" | "PATCH"), _) if not self.may_write:
                return 403, {}
            case "POST", ["issues", _, "comments"]:
                self.add(sent["body"])
                return 201, {}
            case "PATCH", ["issues", "comments", number]:
                self.comments[int(number) - 1]["body"] = sent["body"]
                return 200, {}
        return 500, {}

    @staticmethod
    def _page(found: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
        start = PAGE * (int(query["page"]) - 1)
        return found[start : start + PAGE]


@contextmanager
def serving() -> Iterator[Repository]:
    """A repository whose API answers at `address`, to who has the token."""
    repository = Repository()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            parts = urlsplit(self.path)
            repository.requests.append(f"{self.command} {self.path}")
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent = json.loads(body) if body else None
            status, found = repository.answer(self.command, parts.path, query, sent)
            if self.headers.get("Authorization") != "Bearer the-token":
                status, found = 401, {}
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _any  # noqa: N815 (the library's names)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    repository.address = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield repository
    finally:
        server.shutdown()
        server.server_close()
