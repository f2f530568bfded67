"""A Hugging Face Hub on this machine: enough of its HTTP interface to push, pull and be refused, and a fixture.

Load it with `pytest_plugins = ["tests.fake_hub"]` in `tests/conftest.py`, then ask for the fixture `fake_hub`.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

from tests.hub_trouble import Trouble, damaged
from tests.hub_values import Refusal, Reply, Repository, Request

USER = "tester"
TOKEN = "hf_fake_token"


class FakeHub:
    """The server and what it stores.

    Attributes:
        url: where it listens.
        repositories: by id; make one with `add`, or let the code under test create it.
        requests: (method, path) of every request so far.
        down: a status to answer everything with, such as 503.
        refuse_commits: a status to answer commits with, such as 400.
        troubles: what goes wrong; the first that fits a request strikes.
        waits: seconds that the client has waited between attempts; the fixture lets them pass at once.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self.down: int | None = None
        self.refuse_commits: int | None = None
        self.troubles: list[Trouble] = []
        self.waits: list[float] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; later requests are refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(
        self, repo_id: str, files: dict[str, bytes] | Path | None = None, *, private: bool = False, gated: bool = False
    ) -> Repository:
        """Put a repository there, from a mapping or from the files of a folder."""
        repository = self.repositories[repo_id] = Repository(private, gated)
        if isinstance(files, Path):
            files = {str(p.relative_to(files)): p.read_bytes() for p in files.rglob("*") if p.is_file()}
        repository.commit("main", {".gitattributes": b"", **(files or {})}, "initial commit")
        return repository

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Files of a repository, without `.gitattributes`."""
        files = self.repositories[repo_id].at(revision).files
        return {path: content for path, content in files.items() if path != ".gitattributes"}

    def answer(self, request: Request) -> Reply:
        """Answer one request."""
        self.requests.append((request.method, request.path))
        if self.down is not None:
            raise Refusal(self.down, "The Hub is down")
        trouble = next((one for one in self.troubles if one.strikes(request.method, request.path)), None)
        if trouble is not None and trouble.status is not None:
            refusal = Refusal(trouble.status, "There is trouble")
            refusal.reply.headers |= trouble.headers
            raise refusal
        reply = self._route(request)
        if trouble is not None:
            reply.drop = trouble.drop
            reply.body = damaged(reply.body) if trouble.corrupt else reply.body
        return reply

    def _route(self, request: Request) -> Reply:
        if request.token not in (None, TOKEN):
            raise Refusal(401, "Invalid credentials in Authorization header")
        for methods, pattern, route in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match and request.method in methods.split():
                return route(self, request, **match.groupdict())
        raise Refusal(404, f"The fake Hub has no route for {request.method} {request.path}")

    def repository(self, request: Request, repo: str, *, write: bool = False) -> Repository:
        """A repository that the caller may read, or write to."""
        found = self.repositories.get(repo)
        if request.token is None and (found is None or found.private or write):
            raise Refusal(401, "Invalid username or password.", code=None if write else "RepoNotFound")
        if found is None:
            raise Refusal(404, "Repository not found", code="RepoNotFound")
        if write and not repo.startswith(f"{USER}/"):
            raise Refusal(403, "You have read access but not the required permissions for this operation")
        return found


def _json(value: object, status: int = 200) -> Reply:
    return Reply(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


def _whoami(hub: FakeHub, request: Request) -> Reply:
    if request.token is None:
        raise Refusal(401, "Invalid username or password.")
    role = {"role": "write", "displayName": "test"}
    return _json({"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token", "accessToken": role}})


def _validate_yaml(hub: FakeHub, request: Request) -> Reply:
    content = request.json()["content"]
    header = yaml.safe_load(content.split("---")[1]) if content.startswith("---") else {}
    bases = header.get("base_model", [])
    wrong = [b for b in ([bases] if isinstance(bases, str) else bases) if not re.fullmatch(r"[\w-][\w./-]*", b)]
    errors = [{"message": f'"base_model" with value "{base}" is not valid. Use a model id.'} for base in wrong]
    return _json({"errors": errors, "warnings": []}, 400 if errors else 200)


def _create(hub: FakeHub, request: Request) -> Reply:
    if request.token is None:
        raise Refusal(401, "Invalid username or password.")
    wanted = request.json()
    owner = wanted.get("organization") or USER
    if owner != USER:
        raise Refusal(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
    repo = f"{owner}/{wanted['name']}"
    if repo in hub.repositories:
        return _json({"error": "You already created this model repo", "url": f"{hub.url}/{repo}"}, 409)
    hub.add(repo, private=wanted.get("visibility") == "private")
    return _json({"url": f"{hub.url}/{repo}", "name": repo})


def _preupload(hub: FakeHub, request: Request, repo: str, revision: str) -> Reply:
    hub.repository(request, repo, write=True)
    modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in request.json()["files"]]
    return _json({"files": modes})


def _commit(hub: FakeHub, request: Request, repo: str, revision: str) -> Reply:
    repository = hub.repository(request, repo, write=True)
    if hub.refuse_commits is not None:
        raise Refusal(hub.refuse_commits, "No such commit")
    files, message = dict(repository.at(revision).files), ""
    for line in map(json.loads, request.body.splitlines()):
        value = line["value"]
        if line["key"] == "header":
            message = value["summary"]
        elif line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "deletedFile":
            del files[value["path"]]
    commit = repository.commit(revision, files, message)
    return _json({"success": True, "commitOid": commit.oid, "commitUrl": f"{hub.url}/{repo}/commit/{commit.oid}"})


def _branch(hub: FakeHub, request: Request, repo: str, branch: str) -> Reply:
    repository = hub.repository(request, repo, write=True)
    if branch in repository.branches:
        raise Refusal(409, "Reference already exists")
    repository.branches[branch] = repository.branches["main"]
    return _json({})


def _info(hub: FakeHub, request: Request, repo: str, revision: str = "main") -> Reply:
    repository = hub.repository(request, repo)
    commit = repository.at(revision)
    siblings = [{"rfilename": path} for path in sorted(commit.files)]
    return _json({"id": repo, "sha": commit.oid, "private": repository.private, "tags": [], "siblings": siblings})


def _tree(hub: FakeHub, request: Request, repo: str, revision: str, folder: str = "") -> Reply:
    commit = hub.repository(request, repo).at(revision)
    paths = [path for path in sorted(commit.files) if not folder or path.startswith(f"{folder}/")]
    if folder and not paths:
        raise Refusal(404, f"{folder} does not exist", code="EntryNotFound", commit=commit.oid)
    return _json([_entry(path, commit.files[path]) for path in paths])


def _paths_info(hub: FakeHub, request: Request, repo: str, revision: str) -> Reply:
    commit = hub.repository(request, repo).at(revision)
    return _json([_entry(path, commit.files[path]) for path in request.json()["paths"] if path in commit.files])


def _entry(path: str, content: bytes) -> dict[str, Any]:
    """A file as listings show it; safetensors are stored apart, and known by their SHA-256."""
    entry = {"type": "file", "path": path, "size": len(content), "oid": _git_hash(content)}
    if path.endswith(".safetensors"):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _list(hub: FakeHub, request: Request) -> Reply:
    """Models whose tags, those that the Hub adds included, hold all filters of the query."""
    wanted = set(request.query.get("filter", []))
    found = []
    for repo, repository in hub.repositories.items():
        if repository.private and request.token is None:
            continue
        tags, library = _tags(repository.at("main").files)
        if wanted <= set(tags):
            found.append(
                {
                    "id": repo, "tags": tags, "library_name": library, "private": repository.private, "likes": 1,
                    "downloads": len(repository.commits), "lastModified": "2026-05-31T12:00:00.000Z",
                }
            )  # fmt: skip
    found.sort(key=lambda one: -int(one["downloads"]))
    return _json(found[: int(request.query.get("limit", ["1000"])[0])])


def _tags(files: dict[str, bytes]) -> tuple[list[str], str | None]:
    card = files.get("README.md", b"").decode()
    header = yaml.safe_load(card.split("---")[1]) if card.startswith("---") else None
    if not header:
        return [], None
    base, relation = header.get("base_model"), header.get("base_model_relation")
    added = [f"base_model:{base}", *([f"base_model:{relation}:{base}"] if relation else [])] if base else []
    return [*header.get("tags", []), *added], header.get("library_name")


def _resolve(hub: FakeHub, request: Request, repo: str, revision: str, path: str) -> Reply:
    repository = hub.repository(request, repo)
    if repository.gated:
        raise Refusal(403, f"Access to model {repo} is restricted.", code="GatedRepo")
    commit = repository.at(revision)
    if path not in commit.files:
        raise Refusal(404, "Entry not found", code="EntryNotFound", commit=commit.oid)
    content = commit.files[path]
    entry = _entry(path, content)
    etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
    return Reply(content, headers={"ETag": f'"{etag}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"})


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_MODEL = rf"/api/models/{_REPO}"
_ROUTES: list[tuple[str, str, Callable[..., Reply]]] = [
    ("GET", r"/api/whoami-v2", _whoami),
    ("POST", r"/api/validate-yaml", _validate_yaml),
    ("POST", r"/api/repos/create", _create),
    ("POST", rf"{_MODEL}/preupload/(?P<revision>.+)", _preupload),
    ("POST", rf"{_MODEL}/commit/(?P<revision>.+)", _commit),
    ("POST", rf"{_MODEL}/branch/(?P<branch>.+)", _branch),
    ("POST", rf"{_MODEL}/paths-info/(?P<revision>.+)", _paths_info),
    ("GET", rf"{_MODEL}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?", _tree),
    ("GET", rf"{_MODEL}/revision/(?P<revision>.+)", _info),
    ("GET", r"/api/models", _list),
    ("GET", _MODEL, _info),
    ("GET HEAD", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _resolve),
]


def _ranged(reply: Reply, wanted: str | None) -> Reply:
    """The part of a file that a client asks for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if match is None or "Accept-Ranges" not in reply.headers:
        return reply
    total, first = len(reply.body), int(match[1])
    last = min(int(match[2] or total), total - 1)
    headers = {**reply.headers, "Content-Range": f"bytes {first}-{last}/{total}"}
    return Reply(reply.body[first : last + 1], 206, headers, reply.drop)


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            address = urlsplit(self.path)
            request = Request(self.command, unquote(address.path), body, token, parse_qs(address.query))
            try:
                reply = _ranged(hub.answer(request), self.headers.get("Range"))
            except Refusal as refusal:
                reply = refusal.reply
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body[: len(reply.body) // 2] if reply.drop else reply.body)
            if reply.drop:
                self.wfile.flush()
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

        do_GET = do_HEAD = do_POST = answer

    return Handler


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub of this test alone, logged in as `tester`, with an empty cache below `tmp_path`.

    `huggingface_hub` reads its settings from `constants` at each call, so they are replaced there; one instance of
    its client, which serves its module-level functions, keeps the address from import and is told as well. Its pauses
    between attempts take no time.
    """
    import huggingface_hub
    from huggingface_hub import constants, file_download, hf_api
    from huggingface_hub.utils import _http

    from ks_lottery.checkpoints import hub_patience

    hub = FakeHub()
    settings = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
    for module in (_http, file_download, hub_patience):
        monkeypatch.setattr(module, "time", SimpleNamespace(**vars(time) | {"sleep": hub.waits.append}))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    huggingface_hub.close_session()
    hub.close()
