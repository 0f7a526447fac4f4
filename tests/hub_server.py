"""A small Hugging Face Hub on this machine: what pushing and loading a model ask of it."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants, file_download, utils

TOKEN = "hf_of_the_stand_in"

Files = dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """Repositories of models, each a list of commits for each branch.

    Attributes:
        repos: name -> branch -> its commits, the newest last: files by path.
        private: names.
        messages: of commits, the newest last.
    """

    daemon_threads = True

    @staticmethod
    def forget() -> None:
        """Have the library open new connections: before its version 1, old ones know of no change
        of HF_HUB_OFFLINE."""
        getattr(utils, "reset_sessions", lambda: None)()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, list[Files]]] = {}
        self.private: set[str] = set()
        self.messages: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


def sha(files: Files) -> str:
    """The name of a commit."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
            files = self._files(*found.groups())
            entries = [{"type": "file", "path": p, "size": len(b), "oid": sha({p: b})}
                       for p, b in (files or {}).items()]  # fmt: skip
            return self._give(entries)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            files = self._files(found[1], found[2] or "main")
            if files is not None:
                siblings = [{"rfilename": name} for name in files]
                self._give({"id": found[1], "sha": sha(files), "siblings": siblings})
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            files = self._files(found[1], found[2])
            if files is not None and found[3] in files:
                body = files[found[3]]
                etag = f'"{hashlib.sha1(body).hexdigest()}"'
                self._send(200, body, {"X-Repo-Commit": sha(files), "ETag": etag})
            elif files is not None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            self._send(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if path == "/api/validate-yaml":
            return self._give({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, b'{"error": "Invalid username or password."}')
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/(.+)", path)
        assert found, path
        name, what, branch = found.groups()
        branches = self.server.repos[name]
        if what == "branch":
            new = branch not in branches
            branches.setdefault(branch, list(branches["main"]))
            return self._send(200 if new else 409, b"{}")
        if what == "preupload":
            asked = [one["path"] for one in json.loads(body)["files"]]
            return self._give({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False}
                                         for p in asked]})  # fmt: skip
        files = dict(branches[branch][-1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "deletedFile", line
                del files[value["path"]]
        branches[branch].append(files)
        self._give({"commitUrl": f"{self.server.url}/{name}/commit/{sha(files)}",
                    "commitOid": sha(files), "success": True})  # fmt: skip

    def _create(self, asked: dict[str, object]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.server.repos
        self.server.repos.setdefault(name, {"main": [{".gitattributes": b""}]})
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(name)
        self._give({"url": f"{self.server.url}/{name}"}, 409 if known else 200)

    def _files(self, name: str, revision: str) -> Files | None:
        """What a repository holds; None, once the error is sent, if there is no such thing."""
        branches = self.server.repos.get(name)
        if branches is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        for branch, commits in branches.items():
            for files in reversed(commits):
                if revision in (branch, sha(files)):
                    return files
        return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})

    def _give(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The only hub that there is, with a token for it and an empty cache."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.forget()
        try:
            yield hub
        finally:
            hub.shutdown()
            hub.forget()
