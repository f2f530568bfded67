import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.agreement import response_argmax
from ks_lottery.evaluation.corpus_scores import corpus_score
from ks_lottery.evaluation.generation import Continuation
from ks_lottery.evaluation.translation import TranslationScores, evaluate_translation, score_translations
from tests.tiny_models import tiny_llama
from tests.training.tiny_task import PAIRS, PROMPT

REFERENCES = [[target] for _, target in PAIRS]
PROMPTS = [PROMPT(source) for source, _ in PAIRS]


@pytest.fixture(scope="module")
def talkative() -> TranslationScores:
    """Right first lines, each but the last followed by more."""
    continuations = [
        Continuation(f"\n{target}\n### More of it .", stopped=False, num_tokens=9) for _, target in PAIRS[:-1]
    ]
    return score_translations([*continuations, Continuation(PAIRS[-1][1], stopped=True, num_tokens=5)], REFERENCES)


def test_a_perfect_model(translator, tokenizer) -> None:
    scores = evaluate_translation(translator, tokenizer, PROMPTS, REFERENCES, max_new_tokens=8)
    for name in ("bleu_whole", "bleu_first_line", "chrf_whole", "chrf_first_line"):
        assert getattr(scores, name) == pytest.approx(100)
    assert (scores.stop_rate, scores.mean_tokens) == (1.0, 5.0)
    assert scores.seconds > 0
    assert [output.continuation.text for output in scores.outputs] == [target for _, target in PAIRS]


def test_the_first_line_forgives_going_on(talkative) -> None:
    assert talkative.bleu_first_line == pytest.approx(100)
    assert talkative.bleu_whole < 60
    assert talkative.chrf_whole < talkative.chrf_first_line
    assert talkative.stop_rate == 1 / len(PAIRS)
    assert talkative.mean_tokens == (9 * (len(PAIRS) - 1) + 5) / len(PAIRS)
    assert talkative.bleu_whole == corpus_score("bleu", talkative.hypotheses("whole"), REFERENCES)


def test_intervals_hold_the_score(talkative) -> None:
    interval = talkative.interval("bleu", "whole", resamples=200)
    assert interval.value == talkative.bleu_whole
    assert interval.low < interval.value < interval.high
    assert talkative.interval("chrf", "first_line", resamples=20).value == talkative.chrf_first_line


def test_paired_difference(talkative, translator, tokenizer) -> None:
    perfect = evaluate_translation(translator, tokenizer, PROMPTS, REFERENCES, max_new_tokens=8)
    difference = perfect.difference(talkative, "bleu", "whole", resamples=200)
    assert difference.value == perfect.bleu_whole - talkative.bleu_whole
    assert difference.low > 0
    assert perfect.difference(talkative, text="first_line", resamples=50).value == 0
    other = score_translations([output.continuation for output in talkative.outputs], [["x"], *REFERENCES[1:]])
    with pytest.raises(DataError, match="8 and 8 segments with other references"):
        perfect.difference(other)


def test_json_round_trip(talkative) -> None:
    assert TranslationScores.from_dict(json.loads(json.dumps(talkative.to_dict()))) == talkative


def test_errors(talkative, translator, tokenizer) -> None:
    with pytest.raises(OptionError, match="text='second_line': must be one of whole, first_line"):
        talkative.hypotheses("second_line")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="8 prompts, but references for 1 sentences"):
        evaluate_translation(translator, tokenizer, PROMPTS, REFERENCES[:1])
    with pytest.raises(DataError, match="test set is empty"):
        evaluate_translation(translator, tokenizer, [], [])


TWO_PROCESSES = """
import sys
from transformers import AutoModelForCausalLM
from ks_lottery.evaluation.agreement import response_argmax
from ks_lottery.evaluation.translation import evaluate_translation
from tests.evaluation.test_translation import PROMPTS, REFERENCES
from tests.training.tiny_task import tiny_examples, tiny_tokenizer
from accelerate import PartialState
import json

model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
scores = evaluate_translation(model, tiny_tokenizer(), PROMPTS, REFERENCES, max_new_tokens=8, batch_size=3)
predicted = response_argmax(model, tiny_examples(), batch_size=3).predicted
state = PartialState()
texts = [[o.continuation.text, o.continuation.num_tokens] for o in scores.outputs]
with open(f"{sys.argv[1]}/{state.num_processes}-{state.process_index}.json", "w") as file:
    json.dump([texts, scores.bleu_whole, predicted.tolist()], file)
state.wait_for_everyone()
state.destroy_process_group()
"""


def test_two_processes_give_the_same_list(tmp_path, tokenizer, examples) -> None:
    tiny_llama(seed=5, vocabulary=len(tokenizer)).save_pretrained(tmp_path)
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    root = Path(__file__).resolve().parents[2]
    environment = {
        "PYTHONPATH": str(root), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path),
    }  # fmt: skip
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launch, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    scores = evaluate_translation(model, tokenizer, PROMPTS, REFERENCES, max_new_tokens=8, batch_size=3)
    texts = [[output.continuation.text, output.continuation.num_tokens] for output in scores.outputs]
    predicted = response_argmax(model, examples, batch_size=3).predicted.tolist()
    for process in (0, 1):
        assert json.loads((tmp_path / f"2-{process}.json").read_text()) == [texts, scores.bleu_whole, predicted]
