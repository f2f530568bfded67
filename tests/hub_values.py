"""What a fake Hub keeps and says: commits, repositories, requests, replies, refusals."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Commit:
    oid: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    private: bool
    gated: bool = False
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> Commit:
        content = [(path, hashlib.sha1(files[path]).hexdigest()) for path in sorted(files)]
        oid = hashlib.sha1(f"{branch} {len(self.commits)} {message} {content}".encode()).hexdigest()
        self.commits.append(Commit(oid, message, files))
        self.branches[branch] = oid
        return self.commits[-1]

    def at(self, revision: str) -> Commit:
        oid = self.branches.get(revision, revision)
        for commit in self.commits:
            if commit.oid == oid:
                return commit
        raise Refusal(404, "Invalid rev id", code="RevisionNotFound")


@dataclass
class Reply:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


class Refusal(Exception):
    """An answer that is no success; `code` is the Hub's `X-Error-Code`."""

    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None) -> None:
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        headers |= {"X-Error-Code": code} if code else {}
        headers |= {"X-Repo-Commit": commit} if commit else {}
        self.reply = Reply(json.dumps({"error": message}).encode(), status, headers)


@dataclass
class Request:
    method: str
    path: str
    body: bytes
    token: str | None
    query: dict[str, list[str]] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)
