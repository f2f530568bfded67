"""Settings for tests of the adapter."""

import pytest
import torch
from torch import Tensor

from tests.adapter.tickets import INPUT_ROWS, VOCABULARY


@pytest.fixture
def tokens() -> Tensor:
    """[2, 12] token ids, about a third of them in INPUT_ROWS."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCABULARY, (2, 12), generator=generator)
    tokens[:, ::3] = torch.tensor(INPUT_ROWS)[torch.randint(len(INPUT_ROWS), (2, 4), generator=generator)]
    return tokens
