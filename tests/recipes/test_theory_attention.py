"""The measurements of strong tickets of attention, with a few draws."""

import json
from pathlib import Path

import numpy as np
import pytest
import theory_attention
import torch
from theory_attention_masks import DENSITY, EMBEDDING, PAIRS, WIDTH, RecallHeads, recall, recall_loss


def test_quick_run_leaves_numbers_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theory_attention.run(tmp_path / "out", quick=True)
    names = ("width", "length", "blocks", "control", "scale", "masks")
    pictures = {f"attention-{name}.png" for name in names}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"attention.json", *pictures}
    for name in pictures:
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == list(names)
    found = json.loads((tmp_path / "out" / "attention.json").read_text(encoding="utf-8"))
    assert set(found) == {"setting", "theorem", *names}
    for name in names:
        for label, draws in found[name]["errors"].items():
            assert found[name]["medians"][label] == [np.median(errors) for errors in draws]
    falling = found["width"]["medians"]["T = 8"]
    assert falling[0] > 10 * falling[-1]
    assert found["width"]["fits"]["T = 8"]["rate"] < -0.3
    bounds = found["width"]["errors"]["bound of Lemma 8, any T"]
    for label in ("T = 8", "T = 64"):
        assert (np.array(found["width"]["errors"][label]) <= np.array(bounds)).all()


def test_theorem_asks_for_more_items_with_each_block() -> None:
    items = theory_attention.theorem(theory_attention.Sizes())["items_of_blocks"]
    assert items["1"] < items["2"] < items["3"]


def test_recall_asks_for_one_of_the_values() -> None:
    tokens, answers = recall(50, torch.Generator().manual_seed(0))
    assert tokens.shape == (50, PAIRS + 1, EMBEDDING)
    keys, values = tokens[:, :PAIRS, :WIDTH], tokens[:, :PAIRS, WIDTH : 2 * WIDTH]
    nearest = (keys @ tokens[:, PAIRS, 2 * WIDTH :, None])[..., 0].argmax(dim=1)
    assert (values[torch.arange(50), nearest] == answers).all()


def test_masks_are_learnt_and_weights_stay() -> None:
    model = RecallHeads(8**0.5, 0, masked=True)
    before = {name: weight.clone() for name, weight in model.weights.items()}
    tokens, answers = recall(8, torch.Generator().manual_seed(0))
    (model(tokens) - answers).square().mean().backward()
    for name, weight in model.weights.items():
        assert weight.grad is None
        assert model.scores[name].grad is not None
        kept = model._kept(name)
        assert int((kept != 0).sum()) == round(DENSITY * weight.numel())
        assert (kept[kept != 0] == weight[kept != 0]).all()
        assert (weight == before[name]).all()
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {
        f"scores.{name}" for name in before
    }


def test_training_helps() -> None:
    assert recall_loss(8**0.5, 0, 60) < 0.9 * recall_loss(8**0.5, 0, 1)


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(theory_attention, "run", lambda out, quick: asked.append((out, quick)))
    monkeypatch.setattr("sys.argv", ["theory_attention.py", "--out", str(tmp_path), "--quick"])
    theory_attention.main()
    assert asked == [(tmp_path, True)]
