"""Writes pocket.ipynb beside this file: `python docs/notebooks/make.py`."""

import json
from pathlib import Path

CELLS: list[tuple[str, str]] = [
    (
        "markdown",
        """# A lottery ticket on a CPU

From a base model to the few rows that carry a task, in about a minute, with nothing to download. The model is a LLaMA of
3.3 M weights that was pretrained for this project; the sentences come from a grammar. Run this in the root of the repository.""",
    ),
    (
        "code",
        """%matplotlib inline
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer

root = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "recipes" / "pocket").is_dir())
sys.path.append(str(root / "recipes"))
BASE = str(root / "recipes" / "pocket" / "model")
work = Path(tempfile.mkdtemp())
tokenizer = AutoTokenizer.from_pretrained(BASE)""",
    ),
    (
        "markdown",
        """## Probe: tune the whole embedding, and keep both ends

Adam's beta2 is 0.95 here: with 0.999 a row that was seen once keeps moving long after.""",
    ),
    (
        "code",
        """from pocket.corpus import load_split

from ks_lottery import probe
from ks_lottery.training.examples import response_examples
from ks_lottery.training.prompts import PromptTemplate

prompt = PromptTemplate("instruction", "English", "German")
train, test = load_split("de", "train")[:256], load_split("de", "test")[:40]
examples = response_examples(train, tokenizer, prompt)
options = {
    "learning_rate": 3e-3, "num_train_epochs": 1, "per_device_train_batch_size": 8, "disable_tqdm": True,
    "logging_strategy": "no",
}
after = probe(
    AutoModelForCausalLM.from_pretrained(BASE), examples, work / "probe", arguments=options, processing_class=tokenizer
)""",
    ),
    ("markdown", "## Find: which rows changed their distribution?"),
    (
        "code",
        """from ks_lottery import TopK, find_ticket
from ks_lottery.ticket.tokens import readable_tokens

ticket = find_ticket(work / "probe" / "before", after, finder="ks", selector=TopK(18))
rows = ticket.indices["input"]
for row, height in zip(rows, ticket.selections["input"].columns["statistic"], strict=True):
    print(f"{readable_tokens(tokenizer, [row])[0]:>12}  D = {height:.3f}")""",
    ),
    (
        "markdown",
        """Before and after are paired values of one row, so D and its p-value code the *size* of a shift; they are no error
rate. How often does each token occur?""",
    ),
    (
        "code",
        """from ks_lottery.finders.search import score_units

scores = score_units(work / "probe" / "before", after, "token_rows", "ks")[0].score
counts = np.bincount(np.concatenate([example["input_ids"] for example in examples.examples]), minlength=len(scores))
moved = scores > 0
plt.figure(figsize=(7, 4))
plt.scatter(counts[moved], scores[moved], s=8, color="#9aa5b1", label="not selected")
plt.scatter(counts[rows], scores[rows], s=24, color="#d9540c", label="the ticket")
plt.xscale("symlog")
plt.xlabel("occurrences in the training text")
plt.ylabel("D")
plt.legend()
plt.show()""",
    ),
    ("markdown", "## Train exactly the ticket, and two controls of its size, in the same way"),
    (
        "code",
        """from ks_lottery import attach_ticket, frequency_like, random_like
from ks_lottery.evaluation.translation import evaluate_translation
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.examples import ResponseCollator

prompts, references = [prompt(pair.source) for pair in test], [(pair.target,) for pair in test]


def tuned(ticket):
    torch.manual_seed(0)
    model = attach_ticket(AutoModelForCausalLM.from_pretrained(BASE), ticket)
    arguments = probe_arguments(
        work / "trainer", learning_rate=1e-2, num_train_epochs=1, per_device_train_batch_size=8, save_strategy="no",
        disable_tqdm=True, logging_strategy="no",
    )
    Trainer(
        model=model, args=arguments, train_dataset=examples, data_collator=ResponseCollator(tokenizer.pad_token_id)
    ).train()
    return model


def scored(name, model):
    scores = evaluate_translation(model, tokenizer, prompts, references, max_new_tokens=40, progress=False)
    print(
        f"{name:>20}: BLEU {scores.bleu_whole:5.1f} whole, {scores.bleu_first_line:5.1f} first line, "
        f"stops {scores.stop_rate:4.0%}"
    )
    return scores


results = {"base": scored("base", AutoModelForCausalLM.from_pretrained(BASE))}
model = tuned(ticket)
results["KS rows"] = scored("KS rows", model)
results["most frequent rows"] = scored("most frequent rows", tuned(frequency_like(ticket, counts)))
results["random rows"] = scored("random rows", tuned(random_like(ticket, seed=0, exclude=rows)))""",
    ),
    (
        "markdown",
        """If the most frequent rows do as well, the finding is about frequency, not about the test. Is the difference to
them larger than what another choice of test sentences would make?""",
    ),
    (
        "code",
        """difference = results["KS rows"].difference(results["most frequent rows"])
print(f"KS rows minus most frequent rows: {difference.value:+.1f} BLEU, paired interval "
      f"[{difference.low:+.1f}, {difference.high:+.1f}]")""",
    ),
    ("markdown", "## Save it, and load it where this library is not installed"),
    (
        "code",
        """from peft import PeftModel

model.save_pretrained(work / "adapter")
plain = PeftModel.from_pretrained(
    AutoModelForCausalLM.from_pretrained(BASE), work / "adapter", subfolder="plain/adapter"
)
encoded = tokenizer(prompts[0], return_tensors="pt")
with torch.no_grad():
    gap = (plain(**encoded).logits - model.eval()(**encoded).logits).abs().max()
print(f"largest difference of the logits: {gap:.1e}")""",
    ),
]


def main() -> None:
    """Write the notebook."""
    cells: list[dict[str, object]] = []
    for number, (kind, text) in enumerate(CELLS):
        cell: dict[str, object] = {
            "cell_type": kind,
            "id": f"cell-{number}",
            "metadata": {},
            "source": text.splitlines(keepends=True),
        }
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    file = Path(__file__).with_name("pocket.ipynb")
    file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
