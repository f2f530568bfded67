import json

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, TrainerCallback, TrainingArguments

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import DataError, OptionError, UnitError, UnknownNameError
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import TopK
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.callback import TicketCallback
from ks_lottery.training.probe import newest_checkpoint, probe
from ks_lottery.training.scope import only_trainable, scope_parameters
from ks_lottery.units.architecture import Architecture
from tests.tiny_models import tiny_llama
from tests.training.tiny_task import tiny_examples, tiny_tokenizer

EMBEDDING = "model.embed_tokens.weight"
QUICK = {
    "learning_rate": 1e-2, "max_steps": 6, "per_device_train_batch_size": 4, "use_cpu": True, "disable_tqdm": True,
    "save_strategy": "no",
}  # fmt: skip


def model_of(tokenizer, **options):
    return tiny_llama(vocabulary=len(tokenizer), **options)


def read(folder, name: str) -> torch.Tensor:
    return open_checkpoint(folder).rows(name).clone()


class Killed(Exception):
    """Stands for a kill -9 at a step."""


class KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            raise Killed


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def examples(tokenizer):
    return tiny_examples(tokenizer)


def test_only_rows_of_used_tokens_move(tmp_path, tokenizer, examples) -> None:
    model = model_of(tokenizer).eval()
    model.lm_head.weight.requires_grad_(False)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    after = probe(model, examples, tmp_path, arguments=QUICK, processing_class=tokenizer)
    assert after == tmp_path / "after"
    before = tmp_path / "before"
    assert torch.equal(read(before, EMBEDDING), start[EMBEDDING])
    moved = (read(after, EMBEDDING) != start[EMBEDDING]).any(dim=1).nonzero().flatten().tolist()
    eos = tokenizer.eos_token_id
    assert set(moved) == {token for example in examples for token in example["input_ids"]} - {eos}
    for name in set(start) - {EMBEDDING}:
        assert torch.equal(read(after, name), start[name]), name
    assert torch.equal(model.get_parameter(EMBEDDING), read(after, EMBEDDING))
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["lm_head.weight"]
    assert not model.training
    assert model.config.use_cache
    assert (before / "frozen-00001.safetensors").samefile(after / "frozen-00001.safetensors")


def test_the_folders_are_whole_models(tmp_path, tokenizer, examples) -> None:
    model = model_of(tokenizer)
    after = probe(model, examples, tmp_path, arguments=QUICK, processing_class=tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(after)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert loaded.config.architectures == ["LlamaForCausalLM"]
    assert (after / "tokenizer.json").is_file()
    ticket = find_ticket(before=tmp_path / "before", after=after, selector=TopK(3))
    assert len(ticket) == 3


def test_bfloat16_base_gets_float32_masters(tmp_path, tokenizer, examples) -> None:
    model = model_of(tokenizer, dtype=torch.bfloat16)
    start = model.get_parameter(EMBEDDING).clone()
    after = probe(model, examples, tmp_path, arguments={**QUICK, "learning_rate": 1e-4}, processing_class=tokenizer)
    before, tuned = read(tmp_path / "before", EMBEDDING), read(after, EMBEDDING)
    assert before.dtype == tuned.dtype == torch.float32
    assert torch.equal(before, start.float())
    assert not torch.equal(tuned.to(torch.bfloat16).float(), tuned), "steps finer than bfloat16 are kept"
    assert open_checkpoint(after).dtype("lm_head.weight") == "bfloat16"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    find_ticket(before=tmp_path / "before", after=after, selector=TopK(2))
    with pytest.raises(OptionError, match="Set bf16=True in the arguments, or load the model with dtype=torch.float32"):
        probe(model, examples, tmp_path / "other", arguments={**QUICK, "bf16": False})


def test_tied_embeddings_train_as_one_matrix(tmp_path, tokenizer, examples) -> None:
    model = model_of(tokenizer, tied=True)
    after = probe(model, examples, tmp_path, arguments=QUICK, processing_class=tokenizer)
    assert "lm_head.weight" not in open_checkpoint(after).names()
    assert (read(after, EMBEDDING) != read(tmp_path / "before", EMBEDDING)).any(dim=1).all()
    loaded = AutoModelForCausalLM.from_pretrained(after)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_full_scope(tmp_path, tokenizer, examples) -> None:
    model = model_of(tokenizer)
    after = probe(model, examples, tmp_path, scope="full", arguments=QUICK, processing_class=tokenizer)
    for name in open_checkpoint(after).names():
        assert not torch.equal(read(after, name), read(tmp_path / "before", name)), name
    assert not list(after.glob("frozen-*"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_interrupted_probe_resumes_to_the_same_bits(tmp_path, tokenizer, examples, dtype) -> None:
    options = {**QUICK, "max_steps": 8, "save_strategy": "steps", "save_steps": 3}
    whole = probe(
        model_of(tokenizer, dtype=dtype), examples, tmp_path / "whole", arguments=options, processing_class=tokenizer
    )
    broken = tmp_path / "broken"
    with pytest.raises(Killed):
        probe(model_of(tokenizer, dtype=dtype), examples, broken, arguments=options, processing_class=tokenizer,
              callbacks=[KillAt(5)])  # fmt: skip
    assert not (broken / "after").exists()
    cut = broken / "trainer" / "checkpoint-4"
    cut.mkdir()
    (cut / "trainer_state.json").write_text("{")
    assert newest_checkpoint(broken / "trainer") == str(broken / "trainer" / "checkpoint-3")
    resumed = probe(model_of(tokenizer, dtype=dtype), examples, broken, arguments=options, processing_class=tokenizer)
    assert torch.equal(read(resumed, EMBEDDING), read(whole, EMBEDDING))
    stamp = (resumed / "trained-00001.safetensors").stat().st_mtime_ns
    again = model_of(tokenizer, dtype=dtype)
    assert probe(again, examples, broken, arguments=options, processing_class=tokenizer) == resumed
    assert torch.equal(again.get_parameter(EMBEDDING), read(resumed, EMBEDDING).to(dtype))
    assert (resumed / "trained-00001.safetensors").stat().st_mtime_ns == stamp


def test_another_probe_in_the_folder_is_refused(tmp_path, tokenizer, examples) -> None:
    probe(model_of(tokenizer), examples, tmp_path, arguments={**QUICK, "max_steps": 1}, processing_class=tokenizer)
    with pytest.raises(OptionError, match=r"other settings: max_steps \(max_steps was 1 and is now 2\)"):
        probe(model_of(tokenizer), examples, tmp_path, arguments={**QUICK, "max_steps": 2})
    with pytest.raises(OptionError, match="other settings: base "):
        probe(model_of(tokenizer, seed=1), examples, tmp_path, arguments={**QUICK, "max_steps": 1})
    with pytest.raises(OptionError, match=r"already holds a probe \(probe.json\). Give another output_dir"):
        probe(model_of(tokenizer), examples, tmp_path, arguments={**QUICK, "max_steps": 1}, resume=False)


def test_a_training_arguments_object_is_taken_as_it_is(tmp_path, tokenizer, examples) -> None:
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "checkpoints"),
        **{**QUICK, "max_steps": 1, "save_strategy": "steps"},
        report_to="none",
    )
    probe(model_of(tokenizer), examples, tmp_path / "probe", arguments=arguments, processing_class=tokenizer)
    assert json.loads((tmp_path / "probe" / "probe.json").read_text())["adam_beta2"] == 0.999
    assert newest_checkpoint(tmp_path / "checkpoints") is not None


def test_probe_defaults(tmp_path) -> None:
    arguments = probe_arguments(tmp_path, learning_rate=1e-3)
    assert (arguments.adam_beta2, arguments.weight_decay, arguments.learning_rate) == (0.95, 0.0, 1e-3)
    assert arguments.get_warmup_steps(1000) == 30
    with pytest.raises(OptionError, match=r"no option 'learning_rat'. Did you mean 'learning_rate'\?"):
        probe_arguments(tmp_path, learning_rat=1)


def test_ticket_callbacks_are_attached(tmp_path, tokenizer, examples) -> None:
    model = model_of(tokenizer)
    seen = []

    class Logger(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs) -> None:
            seen.append(dict(logs))

    callback = TicketCallback(before=tmp_path / "before", selector=TopK(3), every=3)
    probe(model, examples, tmp_path, arguments=QUICK, processing_class=tokenizer, callbacks=[Logger(), callback])
    assert [logs["ticket/selected"] for logs in seen if "ticket/selected" in logs] == [3.0, 3.0]


def test_what_cannot_be_probed(tmp_path, tokenizer, examples) -> None:
    model = model_of(tokenizer)
    with pytest.raises(OptionError, match="scope='head': must be one of embedding, full"):
        probe(model, examples, tmp_path, scope="head")
    with pytest.raises(DataError, match="training data set is empty"):
        probe(model, [], tmp_path)
    with pytest.raises(OptionError, match="weight_decay=0.1 would move every trained row"):
        probe(model, examples, tmp_path, arguments={"weight_decay": 0.1, "use_cpu": True})
    arguments = probe_arguments(tmp_path, use_cpu=True)
    arguments.fsdp = True
    with pytest.raises(OptionError, match="does not run sharded"):
        probe(model, examples, tmp_path, arguments=arguments)
    model.config.pad_token_id = None
    with pytest.raises(OptionError, match="No padding id is known"):
        probe(model, examples, tmp_path, arguments=QUICK)
    model.is_quantized = True
    with pytest.raises(OptionError, match="this model is quantised"):
        probe(model, examples, tmp_path)
    model.peft_config = {}
    with pytest.raises(OptionError, match="carries a PEFT adapter. Merge it"):
        probe(model, examples, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_architectures_are_named(tokenizer, monkeypatch) -> None:
    model = model_of(tokenizer)
    model.config.model_type = "novel"
    with pytest.raises(UnknownNameError, match="Unknown architecture 'novel'"):
        scope_parameters(model, "embedding")
    names = Architecture("model.words.weight", "lm_head.weight")
    monkeypatch.setattr("ks_lottery.units.token_rows.architecture", lambda model_type: names)
    with pytest.raises(UnitError, match="has no parameter 'model.words.weight'"):
        scope_parameters(model, "embedding")


def test_gpt2_has_its_own_names() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    assert list(scope_parameters(model, "embedding")) == ["transformer.wte.weight"]


def test_flags_come_back_after_an_error(tokenizer) -> None:
    model = model_of(tokenizer, dtype=torch.bfloat16).train()

    def fail_inside() -> None:
        with only_trainable(model, scope_parameters(model, "embedding")):
            assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [EMBEDDING]
            assert model.get_parameter(EMBEDDING).dtype == torch.float32
            model.config.use_cache = False
            model.eval()
            raise Killed

    with pytest.raises(Killed):
        fail_inside()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.training
    assert model.config.use_cache
