"""Names for token rows, read from the tokenizer file beside a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.reader import FolderCheckpoint
from ks_lottery.ticket.tokens import TokenTable

_TOKENIZER = "tokenizer.json"


class FileTokens:
    """A vocabulary as `ticket.tokens` asks for it, without transformers.

    Args:
        file: a `tokenizer.json`.
    """

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(file))
        self.added_tokens_decoder = self._tokenizer.get_added_tokens_decoder()

    def convert_ids_to_tokens(self, ids: int, /) -> str | None:
        """The piece with this number, or None."""
        piece: str | None = self._tokenizer.id_to_token(ids)
        return piece

    def convert_tokens_to_ids(self, tokens: str, /) -> int | None:
        """The number of a piece, or None."""
        number: int | None = self._tokenizer.token_to_id(tokens)
        return number


def token_table(checkpoints: Sequence[Checkpoint]) -> TokenTable | None:
    """The tokenizer of the first checkpoint that has a `tokenizer.json` beside its weights, or None."""
    for checkpoint in checkpoints:
        if isinstance(checkpoint, FolderCheckpoint):
            file = _tokenizer_file(checkpoint)
            if file is not None:
                return FileTokens(file)
    return None


def tokens_of(source: str, revision: str | None = None, cached_only: bool = False) -> TokenTable | None:
    """The tokenizer of a model's folder or Hub repository, or None if it has no `tokenizer.json`.

    Args:
        source: folder, or Hub id ("user/model").
        revision: branch, tag or commit of a repository.
        cached_only: look for a repository's tokenizer on this machine alone.

    Raises:
        HubError: if the Hub has to be asked and cannot be.
    """
    file: Path | None = Path(source) / _TOKENIZER
    if not Path(source).is_dir():
        file = _cached(source, revision) if cached_only else _downloaded(source, revision)
    return FileTokens(file) if file is not None and file.is_file() else None


def _cached(repo_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo_id, _TOKENIZER, revision=revision)
    except HFValidationError:  # a path of another machine, or a class name
        return None
    return Path(found) if isinstance(found, str) else None


def _downloaded(repo_id: str, revision: str | None) -> Path | None:
    from ks_lottery.checkpoints.download import download

    return download(repo_id, _TOKENIZER, revision=revision, missing_ok=True)


def _tokenizer_file(checkpoint: FolderCheckpoint) -> Path | None:
    from ks_lottery.checkpoints.download import download
    from ks_lottery.checkpoints.reader import HubCheckpoint

    if isinstance(checkpoint, HubCheckpoint):
        return download(checkpoint.name, _TOKENIZER, revision=checkpoint.revision, missing_ok=True)
    file = checkpoint.folder / _TOKENIZER
    return file if file.is_file() else None
