"""Frozen models with batches and a tuned copy, for finders that learn a mask."""

import inspect
from typing import Any

import numpy as np
import torch
from torch import nn

from ks_lottery.finders.base import FINDERS, Finder, UnitScores
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.ticket.ticket import Kind
from tests.finders.saliency.models import MODELS, batches_for


def frozen_of(case: str, kind: Kind = "update", **options: Any) -> Frozen:
    """A fresh frozen model with its batches, and for update tickets a copy of which every weight has moved."""
    model = MODELS[case](**options).requires_grad_(False)
    return Frozen(model, batches_for(case), after=tuned(model) if kind == "update" else None)


def tuned(model: nn.Module, seed: int = 7, size: float = 0.05) -> nn.Module:
    """A copy with every weight moved by Gaussian noise."""
    generator = torch.Generator().manual_seed(seed)
    other = type(model)(model.config)  # type: ignore[arg-type]
    other.load_state_dict(model.state_dict())
    other.to(next(model.parameters()).dtype)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_((size * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype))
    return other


def quick(name: str, kind: Kind, **changes: Any) -> Finder:
    """A finder of this family that learns for three steps, at a density of one half where it has one."""
    entry = FINDERS.get(name)
    known = inspect.signature(entry).parameters
    options = {"kind": kind, "steps": 3, "density": 0.5, **changes}
    return entry(**{option: value for option, value in options.items() if option in known})


def kept_units(entries: list[UnitScores], scores: bool = False) -> np.ndarray:
    """[units] of all groups: which units the learnt mask keeps, or their scores."""
    return np.concatenate([entry.score if scores else entry.columns["kept"] for entry in entries])
