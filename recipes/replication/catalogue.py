"""Every method of the study, by name."""

from collections.abc import Mapping

from replication.methods import Base, Dense, Lora, Method, Prefix, TrainableTokens, Transfer, Units
from replication.mixtures import norms, prompt_and_ends, replicates, with_norms
from replication.setting import Setting
from replication.tickets import (
    TicketPlan,
    as_many_at_random,
    at_alpha,
    basic_tickets,
    concrete,
    control,
    fisher,
    merged_over_directions,
    of_direction,
    of_prompt,
    of_size,
    own_probe,
)


def alpha_name(alpha: float) -> str:
    """Name of the ticket of the paper's rule at a level."""
    return f"ks-{alpha:g}"


def tickets_of(setting: Setting) -> dict[str, TicketPlan]:
    """Every ticket by name; only those that a part asks for are found."""
    levels = {alpha_name(alpha): at_alpha(alpha) for alpha in setting.alphas}
    crossed = {f"ks-of-{name}": of_direction(name) for name in setting.full_directions}
    return {
        **basic_tickets(),
        **levels,
        **crossed,
        "union": merged_over_directions("union"),
        "intersection": merged_over_directions("intersection"),
        "prompt-rows": control("ks", of_prompt),
        "concrete": concrete(lambda lab: lab.setting.rows),
        **{f"ks-top-{k}": of_size(k) for k in (4, 50, 200)},
        "heads-ks": of_size(4, "ks", "full", "heads"),
        "heads-move": of_size(4, "magnitude", "full", "heads"),
        "heads-fisher": fisher(lambda lab: 4, "heads"),
        "heads-random": control("heads-ks", as_many_at_random),
        "layer-ks": of_size(1, "ks", "full", "layers"),
        "layer-move": of_size(1, "magnitude", "full", "layers"),
        "replicated": replicates(),
        "prompt-and-ends": control("ks", prompt_and_ends),
        "norms": control("ks", norms),
        "rows-and-norms": control("ks", with_norms),
        "few-rows-and-norms": control("ks-top-4", with_norms),
        "newline-and-norms": control("newline", with_norms),
        **{f"ks-on-{name}": own_probe(name) for name in setting.paraphrases},
    }


def methods_of(setting: Setting) -> Mapping[str, Method]:
    """Every method by name."""
    levels: dict[str, Method] = {}
    for alpha in setting.alphas:
        name = alpha_name(alpha)
        levels[name] = Units(f"KS rows, p < {alpha:g}", name)
        levels[f"transfer-{name}"] = Transfer(f"partial transfer, p < {alpha:g}", name)
    k = setting.rows
    return {
        "base": Base("base"),
        "full": Dense("full tuning", rates="full", scope="full"),
        "embed": Dense("embed tuning", rates="embed"),
        **levels,
        "ks": Units(f"KS rows, {k} largest D", "ks"),
        "transfer-ks": Transfer(f"partial transfer, {k} largest D", "ks"),
        "trainable-tokens": TrainableTokens(f"TrainableTokens, the same {k} rows", "ks"),
        "move": Units(f"largest move, {k} rows", "move"),
        "relative-move": Units(f"largest relative move, {k} rows", "relative-move"),
        "fisher": Units(f"Fisher, {k} rows", "fisher"),
        "frequency": Units(f"most frequent, {k} rows", "frequency"),
        "count-matched-structural": Units(f"random, equal counts, {k} rows", "count-matched-structural"),
        "count-matched": Units(f"random, equal counts, no prompt row, {k} rows", "count-matched"),
        "newline": Units("one row: newline", "newline"),
        "all-others": Units(f"all rows but the {k} of KS", "all-others", rates="others"),
        "lora-1": Lora("LoRA r=1", rates="lora", rank=1),
        "lora-8": Lora("LoRA r=8", rates="lora", rank=8),
        "prefix": Prefix("prefix tuning, 8 tokens", rates="prefix"),
        "union": Units("union of the directions' tickets", "union", rate_of="ks"),
        "intersection": Units("intersection of the directions' tickets", "intersection", rate_of="ks"),
        **{f"ks-of-{name}": Units(f"KS rows of {name}", f"ks-of-{name}", rate_of="ks")
           for name in setting.full_directions},
        "replicated": Units(f"KS rows that replicate, {k} rows", "replicated", rate_of="ks"),
        "prompt-and-ends": Units("rows of the prompt and of sentence ends", "prompt-and-ends"),
        "norms": Units("all norms", "norms", rates="norms"),
        "rows-and-norms": Units(f"{k} KS rows and all norms", "rows-and-norms", rates="norms"),
        "few-rows-and-norms": Units("4 KS rows and all norms", "few-rows-and-norms", rates="norms"),
        "newline-and-norms": Units("newline and all norms", "newline-and-norms", rates="norms"),
        "prompt-rows": Units("all rows of the prompt", "prompt-rows"),
        "concrete": Units(f"concrete search, {k} rows", "concrete"),
        **{f"ks-top-{n}": Units(f"KS rows, {n} largest D", f"ks-top-{n}") for n in (4, 50, 200)},
        **{f"heads-{rule}": Units(f"4 heads by {title}", f"heads-{rule}", rates="heads")
           for rule, title in (("ks", "KS"), ("move", "move"), ("fisher", "Fisher"), ("random", "chance"))},
        "layer-ks": Units("one layer by KS", "layer-ks", rates="heads"),
        "layer-move": Units("one layer by move", "layer-move", rates="heads"),
        "lora-1-one-layer": Lora("LoRA r=1, q and v of one layer", rates="lora", rank=1,
                                 targets=("q_proj", "v_proj"), layers=(0,)),
        "lora-1-qv": Lora("LoRA r=1, q and v", rates="lora", rank=1, targets=("q_proj", "v_proj")),
        **{f"embed-{name}": Dense(f"embed tuning on prompt {name}", rates="embed", prompt=name)
           for name in setting.paraphrases},
        "embed-beta2-0.999": Dense("embed tuning, beta2 0.999", rates="embed", beta2=0.999),
    }  # fmt: skip
