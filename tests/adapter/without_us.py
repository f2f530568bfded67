"""Loads adapters and models in a process where `import ks_lottery` fails, and saves the logits that they compute.

What plain PEFT says while it loads, other than of its own affairs, is an error.
"""

import copy
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging


@cache
def loaded(folder: str) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


def base_of(case: dict[str, Any]) -> nn.Module:
    return copy.deepcopy(loaded(case["base"]))


def native(case: dict[str, Any]) -> nn.Module:
    model = base_of(case)
    model.load_adapter(case["adapter"])
    return model


def merged(case: dict[str, Any]) -> nn.Module:
    return PeftModel.from_pretrained(base_of(case), case["adapter"]).merge_and_unload()


def reloaded(case: dict[str, Any]) -> nn.Module:
    merged(case).save_pretrained(case["scratch"])
    return AutoModelForCausalLM.from_pretrained(case["scratch"], dtype="auto")


LOADERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "base": base_of,
    "PeftModel": lambda case: PeftModel.from_pretrained(base_of(case), case["adapter"]),
    "AutoPeft": lambda case: AutoPeftModelForCausalLM.from_pretrained(case["adapter"], dtype="auto"),
    "AutoModel": lambda case: AutoModelForCausalLM.from_pretrained(case["adapter"], dtype="auto"),
    "load_adapter": native,
    "merged": merged,
    "reloaded": reloaded,
}


@torch.no_grad()
def logits(load: Callable[[dict[str, Any]], nn.Module], case: dict[str, Any], tokens: Tensor) -> Tensor | str:
    warnings.filterwarnings("ignore" if case["warns"] else "error", category=UserWarning)
    warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled")
    try:
        return load(case).eval()(input_ids=tokens).logits
    except KeyError as error:
        return repr(error)


def logits_without_us(
    cases: Mapping[str, Mapping[str, Any]], tokens: Tensor, folder: Path
) -> dict[str, dict[str, Tensor | str]]:
    """Logits of each case and loader, or what the loader raised instead.

    Args:
        cases: name to `base`, `adapter`, `loaders`, whether PEFT `warns`, and a folder for `scratch`.
        tokens: [batch, length] what the models read.
        folder: for the files that go there and back.
    """
    work = {"cases": cases, "tokens": tokens.tolist(), "results": str(folder / "results.pt")}
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    code = "import runpy, sys; sys.modules['ks_lottery'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    command = [sys.executable, "-c", code, __file__, str(folder / "work.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "None"
    assert "nexpected" not in done.stderr
    return torch.load(work["results"])


def main() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing")
    with open(sys.argv[2], encoding="utf-8") as file:
        work = json.load(file)
    tokens = torch.tensor(work["tokens"])
    results = {
        name: {loader: logits(LOADERS[loader], case, tokens) for loader in case["loaders"]}
        for name, case in work["cases"].items()
    }
    torch.save(results, work["results"])
    print(sys.modules["ks_lottery"])


if __name__ == "__main__":
    main()
