import pytest
import step
import torch
from result import ResultsDifferError
from tunings import LORA, QUICK, TUNINGS, rows


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # PEFT's SHiRA
@pytest.mark.parametrize("title", step.GROUPS)
def test_every_group_is_checked_and_compared_with_its_targets(title: str) -> None:
    names = ["limit", *step.GROUPS[title]]
    memory = {name: {"peak memory": 1.0, "optimizer": 1.0, "file": 1.0} for name in names}
    figures = step.compare(title, QUICK, names, 1, memory).figures()
    assert [method["name"] for method in figures["methods"]] == names
    assert figures["caption"].startswith(f"{title}. 2 x 16 tokens, 2 layers of width 96")
    judged = {(method["name"], one["target"]) for method in figures["methods"] for one in method["targets"]}
    expected = [target for target in (*step.TARGETS, *step.SIZE_TARGETS) if _name(target) in names]
    assert len(judged) == len(expected) > 0


def _name(target: object) -> str:
    return target[0] if isinstance(target, tuple) else target.method  # type: ignore[attr-defined]


def test_memory_is_that_of_one_method() -> None:
    sizes = step.measure_memory(QUICK, "rows 18")
    assert sizes["optimizer"] == 8 * 18 * QUICK.width / 2**20
    assert sizes["file"] == pytest.approx(18 * (4 * QUICK.width + 8) / 2**20)
    assert step.measure_memory(QUICK, LORA)["peak memory"] > 100


def test_a_wrong_gradient_is_not_timed() -> None:
    tunings = {name: TUNINGS[name](QUICK.model()) for name in ("limit", "heads 1 of 12", "heads 1 of 12, dense + mask")}
    masked = tunings["heads 1 of 12, dense + mask"]
    masked.masks = {parameter: 1.01 * mask for parameter, mask in masked.masks.items()}
    with pytest.raises(ResultsDifferError, match="Ours and heads 1 of 12, dense . mask differ"):
        step.check(tunings, QUICK.tokens())


def test_rows_are_the_first_ones() -> None:
    config = rows(5)(QUICK.model())
    assert torch.equal(torch.tensor(config.positions["model.embed_tokens"]), torch.arange(5))
