import pytest
import torch

from ks_lottery.training.examples import ResponseCollator
from tests.tiny_models import tiny_llama
from tests.training.tiny_task import tiny_examples, tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def examples(tokenizer):
    return tiny_examples(tokenizer)


@pytest.fixture(scope="session")
def translator(tokenizer, examples):
    """A tiny Llama that has learnt the toy sentences and their ends."""
    model = tiny_llama(vocabulary=len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = ResponseCollator(0)(list(examples))
    for _ in range(60):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.05
    return model.eval()
