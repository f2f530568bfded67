"""Finding over several processes: each scores its share of the units, and all end with the scores of all.

Every process (a *rank* of `torch.distributed`) calls the same functions with the same arguments. Whatever can fail on
one of them runs inside a step; a step ends with an exchange, so that an error on one rank is an error on all, and
nobody waits for a rank that has given up.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ks_lottery import errors
from ks_lottery.checkpoints.reader import Checkpoint, ModelCheckpoint, open_checkpoint
from ks_lottery.errors import LotteryError, OptionError, UnitError
from ks_lottery.finders.base import Finder, Shift, UnitScores
from ks_lottery.finders.shares import Part, UnitSize, share_out, unit_sizes, with_witnesses
from ks_lottery.ticket.identity import BaseIdentity, identify
from ks_lottery.units.granularity import Granularity
from ks_lottery.units.slab import UnitGroup

if TYPE_CHECKING:
    import torch

Exchange = Callable[[bytes], list[bytes]]
Json = TypeVar("Json")


def _alone(mine: bytes) -> list[bytes]:
    return [mine]


@dataclass(frozen=True)
class Ranks:
    """The processes that find a ticket together; by default this one alone.

    Attributes:
        rank: number of this process.
        size: number of processes.
        exchange: hands over bytes and returns those of every rank, in order; all ranks call it together.
    """

    rank: int = 0
    size: int = 1
    exchange: Exchange = _alone

    def step(self, name: str, work: Callable[[], bytes]) -> list[bytes]:
        """Do something on every rank, and exchange the results.

        Args:
            name: what is done, and with which options: the same on every rank.
            work: what this rank does.

        Returns:
            per rank, what `work` returned there.

        Raises:
            OptionError: if the ranks are at steps of different names.
            LotteryError: if `work` failed on any rank: here the very exception of the first rank that failed, if it was
                this one; on the others the library's error of the same type, which names that rank.
        """
        failure: Exception | None = None
        try:
            message = {"step": name}, work()
        except Exception as error:
            failure, message = error, ({"step": name, "type": type(error).__name__, "error": str(error)}, b"")
        results = []
        for rank, theirs in enumerate(self.exchange(_message(*message))):
            head, content = _parted(theirs)
            if head["step"] != name:
                raise OptionError(
                    f"Rank {self.rank} is about to {name}, but rank {rank} to {head['step']}. With distributed=True "
                    "every process must make the same calls with the same arguments."
                )
            results.append((head, content))
        for rank, (head, _) in enumerate(results):
            if "error" in head:
                if rank == self.rank and failure is not None:
                    raise failure
                raise _error_of(rank, head) from failure
        return [content for _, content in results]

    def from_first(self, name: str, make: Callable[[], Json]) -> Json:
        """A JSON value that rank 0 makes for all; lists come back as lists. Errors as `step`."""
        made = self.step(name, lambda: b"" if self.rank else json.dumps(make()).encode())
        value: Json = json.loads(made[0])
        return value

    def open(
        self,
        before: "str | os.PathLike[str] | torch.nn.Module | Checkpoint",
        after: "str | os.PathLike[str] | torch.nn.Module | Checkpoint",
    ) -> tuple[Checkpoint, Checkpoint]:
        """Open both checkpoints on every rank.

        Args:
            before: as for `open_checkpoint`, and on several ranks no live model.
            after: as well.

        Raises:
            OptionError: on several ranks, if one of them is a live model.
            CheckpointError, HubError: as `open_checkpoint`.
        """
        opened: list[Checkpoint] = []

        def work() -> bytes:
            opened.extend((open_checkpoint(before), open_checkpoint(after)))
            for side, checkpoint in zip(("before", "after"), opened, strict=True):
                if self.size > 1 and isinstance(checkpoint, ModelCheckpoint):
                    raise OptionError(
                        f"distributed=True, but {side} = {checkpoint.name!r} is a live model, which may be sharded or "
                        "differ between processes. Save it with save_pretrained and give the folder, or find without "
                        "distributed=True."
                    )
            return b""

        self.step("open before and after", work)
        return opened[0], opened[1]

    def groups(self, kind: Granularity, before: Checkpoint) -> tuple[UnitGroup, ...]:
        """Unit groups of a model; with several ranks, only the first one opens all files to see what there is."""
        if self.size == 1:
            return tuple(kind.groups(before.layout()))
        listed = self.from_first(
            f"list the units of {_described(kind)}", lambda: [group.to_dict() for group in kind.groups(before.layout())]
        )
        return tuple(map(UnitGroup.from_dict, listed))

    def score(self, method: Finder, groups: Sequence[UnitGroup], evidence: Shift) -> list[UnitScores]:
        """Score every unit, each rank its share; the result is bit for bit that of one process.

        A finder's score of a unit must depend on that unit and on the sizes of all units, and on nothing else. Where
        `evidence.level` is set, what one process leaves inexact may be another inexact value.

        Returns:
            one entry per group, the same on every rank.

        Raises:
            UnitError, CheckpointError: as the finder; on every rank.
            OptionError: if the ranks use different finders.

        Cost:
            A rank opens the files of its share, and where that lacks a kind of unit (`with_witnesses`) one more; rank 0
            opens all files of `before` to read their headers.
        """
        if self.size == 1:
            return list(method.score(groups, evidence))
        name = f"score by {_described(method)}, level {evidence.level}"
        listed = self.from_first(
            f"measure the units to {name}", lambda: [asdict(size) for size in unit_sizes(groups, evidence.before)]
        )
        sizes = [UnitSize(tuple(size["values"]), size["num_bytes"]) for size in listed]
        shares = share_out(groups, sizes, self.size)
        mine = shares[self.rank]
        packed = self.step(name, lambda: pack(_scored_share(method, groups, mine, sizes, evidence)))
        pieces: list[list[UnitScores]] = [[] for _ in groups]
        for share, content in zip(shares, packed, strict=True):
            for part, piece in zip(share, unpack(content, [part.of(groups) for part in share]), strict=True):
                pieces[part.group].append(piece)
        return [joined(group, parts) for group, parts in zip(groups, pieces, strict=True)]

    def identify(
        self, before: Checkpoint, parameters: Iterable[str], selected: Sequence[NDArray[np.int64]]
    ) -> BaseIdentity:
        """Identity of the base model of a ticket; with several ranks, the first one reads it.

        Args:
            before: the base model.
            parameters: those that the ticket's units lie in.
            selected: per group, the selected units; on every rank the same ones.

        Raises:
            OptionError: if the ranks selected different units.
        """
        if self.size == 1:
            return identify(before, parameters)
        units = hashlib.sha256(b"".join(indices.tobytes() for indices in selected)).hexdigest()
        name = f"identify the base model of {sum(map(len, selected))} selected units with the digest {units[:16]}"
        return BaseIdentity.from_dict(self.from_first(name, lambda: identify(before, parameters).to_dict()))

    def require_one(self, why: str) -> None:
        """Refuse what is not shared out.

        Raises:
            OptionError: if there are several ranks.
        """
        if self.size > 1:
            raise OptionError(
                f"distributed=True with {self.size} processes, but there are {why}, and that is not shared out. Find "
                "the ticket in one process, or choose larger or fewer units (the option only=... of the granularity)."
            )


def ranks_for(distributed: bool) -> Ranks:
    """The processes to find with.

    Args:
        distributed: whether all processes of `torch.distributed` take part; a process that has not imported torch is
            alone.

    Raises:
        OptionError: if the environment says that there are several processes, but they are not connected.
    """
    torch = sys.modules.get("torch")
    if not distributed:
        return Ranks()
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size(), exchange_tensors)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise OptionError(
            f"distributed=True, and the environment says that this is one of WORLD_SIZE={os.environ['WORLD_SIZE']} "
            "processes, but they are not connected. Make accelerate.PartialState() first, or call "
            "torch.distributed.init_process_group."
        )
    return Ranks()


def exchange_tensors(mine: bytes) -> list[bytes]:
    """Hand bytes to all ranks of `torch.distributed`, over any backend; nothing is pickled.

    Args:
        mine: at least one byte.

    Returns:
        the bytes of every rank, in order.
    """
    import torch
    from torch import distributed

    on_cpu = "cpu:" in str(distributed.get_backend_config())
    device = torch.device("cpu") if on_cpu else torch.accelerator.current_accelerator()
    length = torch.tensor([len(mine)], device=device)
    lengths = [torch.empty_like(length) for _ in range(distributed.get_world_size())]
    distributed.all_gather(lengths, length)
    sizes = [int(one) for one in lengths]
    padded = torch.zeros(max(sizes), dtype=torch.uint8)
    padded[: len(mine)] = torch.frombuffer(bytearray(mine), dtype=torch.uint8)
    everyone = [torch.empty(max(sizes), dtype=torch.uint8, device=device) for _ in sizes]
    distributed.all_gather(everyone, padded.to(device))
    return [one[:size].cpu().numpy().tobytes() for one, size in zip(everyone, sizes, strict=True)]


def pack(scores: Sequence[UnitScores]) -> bytes:
    """Scores as bytes, without their groups."""
    head = [{"columns": list(entry.columns), "log_p": entry.log_p is not None} for entry in scores]
    content = io.BytesIO()
    for entry in scores:
        log_p = () if entry.log_p is None else (entry.log_p,)
        for array in (entry.score, entry.changed, *log_p, *entry.columns.values()):
            np.save(content, array, allow_pickle=False)
    return _message(head, content.getvalue())


def unpack(packed: bytes, groups: Sequence[UnitGroup]) -> list[UnitScores]:
    """What `pack` packed, for these groups."""
    head, arrays = _parted(packed)
    content = io.BytesIO(arrays)
    scores = []
    for group, entry in zip(groups, head, strict=True):
        score, changed = (np.load(content, allow_pickle=False) for _ in range(2))
        log_p = np.load(content, allow_pickle=False) if entry["log_p"] else None
        columns = {name: np.load(content, allow_pickle=False) for name in entry["columns"]}
        scores.append(UnitScores(group, score=score, changed=changed, columns=columns, log_p=log_p))
    return scores


def joined(group: UnitGroup, pieces: Sequence[UnitScores]) -> UnitScores:
    """Scores of a group from those of its parts, in order."""
    log_ps = [piece.log_p for piece in pieces if piece.log_p is not None]
    return UnitScores(
        group,
        score=np.concatenate([piece.score for piece in pieces]),
        changed=np.concatenate([piece.changed for piece in pieces]),
        columns={name: np.concatenate([piece.columns[name] for piece in pieces]) for name in pieces[0].columns},
        log_p=np.concatenate(log_ps) if log_ps else None,
    )


def _scored_share(
    method: Finder, groups: Sequence[UnitGroup], share: Sequence[Part], sizes: Sequence[UnitSize], evidence: Shift
) -> list[UnitScores]:
    if not share:
        return []
    pool = list(with_witnesses(share, sizes))
    try:
        scores = list(method.score([part.of(groups) for part, _ in pool], evidence))
    except UnitError:
        # A part counts its units from its own first one; the error of the whole groups names the right one.
        for _ in method.score([groups[part.group] for part in share], evidence):
            pass
        raise
    return [entry for entry, (_, wanted) in zip(scores, pool, strict=True) if wanted]


def _described(choice: Finder | Granularity) -> str:
    return f"{choice.name} {asdict(choice) if is_dataclass(choice) else {}}"


def _message(head: Any, content: bytes) -> bytes:
    """JSON and bytes as one."""
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + content


def _parted(message: bytes) -> tuple[Any, bytes]:
    end = 8 + int.from_bytes(message[:8], "little")
    return json.loads(message[8:end]), message[end:]


def _error_of(rank: int, head: dict[str, str]) -> LotteryError:
    """The error of another rank: of its type if that is one of the library's, else a `LotteryError` that names it."""
    kind = getattr(errors, head["type"], None)
    if isinstance(kind, type) and issubclass(kind, LotteryError):
        return kind(f"On rank {rank}: {head['error']}")
    return LotteryError(f"On rank {rank}: {head['type']}: {head['error']}")
