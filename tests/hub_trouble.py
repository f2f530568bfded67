"""What can go wrong between this machine and a Hub: refusals, pauses, connections that end half way, damaged files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Trouble:
    """One thing that goes wrong with matching requests.

    Attributes:
        path: pattern that matches the whole path of a request.
        methods: of the requests.
        times: how often it happens before all is well again.
        status: answered instead, or None.
        headers: of that answer.
        drop: end the connection in the middle of the body.
        corrupt: change one byte of the body.
    """

    path: str
    methods: str = "GET HEAD POST"
    times: int = 10**9
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    corrupt: bool = False

    def strikes(self, method: str, path: str) -> bool:
        """Whether this request is hit; counts it."""
        if self.times < 1 or method not in self.methods.split() or not re.fullmatch(self.path, path):
            return False
        self.times -= 1
        return True


def damaged(body: bytes) -> bytes:
    """A body of the same length with another byte in the middle."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def busy(path: str = ".*", status: int = 429, times: int = 10**9, wait: int | None = None, **more: str) -> Trouble:
    """The Hub has too much to do, and says for how many seconds if `wait` is given."""
    headers = {} if wait is None else {"Retry-After": str(wait)}
    return Trouble(path, status=status, times=times, headers=headers, **more)
