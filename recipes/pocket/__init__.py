"""The embedded default of the recipes: a generated corpus, its splits, and a small pretrained model."""

from pathlib import Path

MODEL_FOLDER = Path(__file__).resolve().parent / "model"
