"""The page of the study, the tables of README.md and PAPERS.md, and the files they are made with."""

from collections.abc import Callable
from pathlib import Path

from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.errors import DataError
from replication.page_paper import paper_table, readme_table
from replication.page_short import short
from replication.parquet import write_parquet
from replication.plan import Plan
from replication.setting import Setting

RESULTS = Path("results") / "study"
COMMAND = "python recipes/study.py --tatoeba DIR"
_EMBEDDED = """The embedded LLaMA (`recipes/pocket/model`, 3.3 M parameters, 4,096 token rows of 192 numbers), which saw
these languages in pretraining but no instruction."""
_OF_EMBEDDED = """\
- **One small model.** Row length 192 gives the test little power: the paper's rows have 4,096 numbers. No GPU was at
  hand; `python recipes/pretrain_pocket.py --size base` makes a larger base model, and `--model` studies it.
- **A base model that follows no instruction.** The paper's base translates and then goes on; this one hardly begins.
  What tuning teaches here is mostly to translate on this prompt, there mostly to stop.
"""
Section = Callable[[Plan, Path], str]


def render(plan: Plan, docs: Path, sections: tuple[Section, ...]) -> Path:
    """Write `study.md`, its pictures and data, and the tables between the marks of the two files beside `docs`.

    Args:
        plan: the study, finished or not.
        docs: folder of the page; pictures and data go to `results/study/` in it.
        sections: each gets the plan and the folder for its pictures, and returns Markdown.

    Raises:
        DataError: if README.md or PAPERS.md is there without the marks.
    """
    folder = docs / RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    titles = {name: method.title for name, method in plan.methods.items()}
    parts = [_head(plan), short(plan.lab, titles), _limits(plan.setting)]
    parts += [section(plan, folder) for section in sections]
    write_parquet(plan, folder / "results.parquet")
    page = docs / "study.md"
    _write(page, "\n\n".join(part.strip() for part in parts if part.strip()) + "\n")
    for file, table in (("README.md", readme_table(plan.lab, titles)), ("PAPERS.md", paper_table(plan.lab))):
        if (docs.parent / file).is_file():
            put_between_marks(docs.parent / file, table)
    return page


def put_between_marks(file: Path, table: str) -> None:
    """Replace what stands between `<!-- study -->` and `<!-- /study -->`.

    Raises:
        DataError: if the file lacks one of the marks.
    """
    text = file.read_text(encoding="utf-8")
    before, mark, rest = text.partition("<!-- study -->")
    _, end, after = rest.partition("<!-- /study -->")
    if not mark or not end:
        raise DataError(f"{str(file)!r} has no <!-- study --> ... <!-- /study -->, between which its table goes.")
    _write(file, f"{before}{mark}\n\n{table.strip()}\n\n{end}{after}")


def _write(file: Path, text: str) -> None:
    with atomic_file(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _head(plan: Plan) -> str:
    setting, cells = plan.setting, plan.lab.cells
    done = [record for _, record in cells.finished()]
    hours = sum(record["seconds"] for record in done) / 3600
    commits = sorted({record["commit"][:12] for record in done})
    state = "" if len(done) == len(cells.cells) else f" **{len(cells.cells) - len(done)} cells are still missing.**"
    languages = ", ".join(setting.full_directions)
    base = f"The base model is `{setting.model}`." if setting.model else _EMBEDDED
    return f"""# Is the ticket winning?

KS-Lottery (Yuan et al., NAACL 2025) says that tuning 18 token rows of a 7-billion-parameter model matches full
fine-tuning. This page asks the same of a small model that was really pretrained, with every control that could explain
the result otherwise. All sentences with numbers are computed from the run; nothing here was written by hand after it.

**Setting.** {base} Tatoeba from English to {languages}, split by connected component of
the graph of sentence pairs, so that no test sentence occurs on either side of a training pair. {setting.train_pairs:,}
training pairs, {setting.epochs} epoch, batch {setting.batch_size}; {setting.dev_sentences} development and
{setting.test_sentences:,} test sentences a direction; {len(setting.seeds)} replicates, each with training pairs, order
and initial values of its own. Every method tries {setting.tries} learning rates on the development sentences of
en-{setting.tuned_on}, first replicate; the best serves all directions and replicates. Greedy decoding,
{setting.max_new_tokens} tokens. Brackets are 95 % intervals of a paired bootstrap over test sentences, all replicates
together; they do not cover the choice of training pairs, for which the replicates stand beside them. *A difference is
shown* where the interval leaves out 0 and all replicates agree in sign.

Made by `{COMMAND}`, then `{COMMAND} --render docs`: {len(done):,} of {len(cells.cells):,} cells,
{hours:.1f} hours of one core, commits {", ".join(f"`{commit}`" for commit in commits)}.{state} Every number is a row of
[results.parquet]({RESULTS}/results.parquet), which names the run directory, configuration, seed and commit that it
comes from.

## In short"""


def _limits(setting: Setting) -> str:
    """What to doubt; of the embedded model also what is known of it."""
    return f"""## What this does not show

{"" if setting.model else _OF_EMBEDDED}- **Short sentences**, at most 8 English words, of the most frequent words.
- **A bootstrap interval is not a replicate.** {len(setting.seeds)} replicates bound what luck of training can do only
  roughly.
- **p is no error rate.** Rows before and after are paired, and the numbers of a row are no independent draws; wherever
  a p-value stands on this page, it is a code of the size of a shift."""
