import pytest
import torch

from ks_lottery.errors import OptionError
from ks_lottery.evaluation.inference import inference_mode, run_batches
from tests.tiny_models import tiny_llama


def test_results_keep_the_order_and_batches_go_longest_first() -> None:
    seen = []

    def run(batch: list[str]) -> list[str]:
        seen.append(batch)
        return [item.upper() for item in batch]

    items = ["a", "bbb", "cc", "dddd", "ee"]
    assert run_batches(items, [len(item) for item in items], 2, run, "test") == ["A", "BBB", "CC", "DDDD", "EE"]
    assert seen == [["dddd", "bbb"], ["cc", "ee"], ["a"]]
    assert run_batches([], [], 2, run, "test") == []
    with pytest.raises(OptionError, match="batch_size=0"):
        run_batches(items, [1] * 5, 0, run, "test")


def test_every_module_gets_its_own_mode_back() -> None:
    model = tiny_llama().train()
    model.lm_head.eval()
    with inference_mode(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert model.training
    assert not model.lm_head.training
    assert torch.is_grad_enabled()
