"""Skipping gradients before the first ticket token changes no loss, no logits and no gradient."""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments, set_seed

from ks_lottery.adapter.cache_argument import cache_field
from ks_lottery.adapter.config import LotteryConfig
from ks_lottery.adapter.prefix import PROVEN, first_hit, skip_unused_gradients
from ks_lottery.adapter.rows import RowChange
from ks_lottery.errors import AdapterError
from tests.adapter.tickets import randomise
from tests.tiny_models import recompute

CHOSEN, VOCABULARY, LENGTH = [3, 7], 20, 12
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3")},
    "mistral with a window": ("mistral", {"sliding_window": 3}),
    "phi3 with a window": ("phi3", {"sliding_window": 3}),
    "qwen2 with a window": ("qwen2", {"sliding_window": 3, "use_sliding_window": True, "max_window_layers": 1}),
    "qwen3 with a window": ("qwen3", {"sliding_window": 3, "use_sliding_window": True, "max_window_layers": 1}),
}


def make(case: str = "llama", positions: dict[str, list[int]] | None = None, **options: Any) -> PeftModel:
    """A random model in float64, with grouped heads, whose ticket has rows of the input embedding, in training mode."""
    model_type, own = CASES[case]
    config = AutoConfig.for_model(
        model_type, hidden_size=16, num_attention_heads=4, num_key_value_heads=2, intermediate_size=12,
        vocab_size=VOCABULARY, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        **{"num_hidden_layers": 2, "tie_word_embeddings": False, "use_cache": False, **own, **options},
    )  # fmt: skip
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config).double()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.normal_(mean=float(parameter.dim() == 1), std=0.3)
    embedding = next(name for name, module in base.named_modules() if module is base.get_input_embeddings())
    model = get_peft_model(base, LotteryConfig(positions=positions or {embedding: CHOSEN}, task_type="CAUSAL_LM"))
    randomise(model)
    return model.train()


def batch(first: int = 7) -> dict[str, Tensor]:
    """Two sequences, the first of which has its first ticket token at a given position."""
    tokens = torch.randint(8, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(3))
    if first < LENGTH:
        tokens[0, first], tokens[:, -1] = 3, 7
    return {"input_ids": tokens, "labels": tokens}


def delta(model: PeftModel) -> Tensor:
    return model.get_base_model().get_input_embeddings().ks_ticket_delta["default"]


def step(model: PeftModel, inputs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, logits and gradient."""
    model.zero_grad()
    output = model(**inputs)
    loss = output.loss if "labels" in inputs else (output.logits**2).mean()
    loss.backward()
    gradient = delta(model).grad
    assert gradient is not None
    return loss.detach(), output.logits.detach(), gradient


@contextmanager
def recorded(model: PeftModel) -> Iterator[list[tuple[bool, int]]]:
    """(with gradient, positions) of every pass."""
    passes: list[tuple[bool, int]] = []

    def record(_: Any, inputs: tuple[Tensor], output: Any) -> None:
        passes.append((output.requires_grad, inputs[0].shape[1]))

    handle = model.get_base_model().get_input_embeddings().register_forward_hook(record)
    yield passes
    handle.remove()


def assert_equal(model: PeftModel, inputs: dict[str, Any], passes: list[tuple[bool, int]], shortest: int = 1) -> None:
    """A step equals the ordinary one to 1e-6, and takes the given passes."""
    expected = step(model, inputs)
    with skip_unused_gradients(model, shortest), recorded(model) as seen:
        got = step(model, inputs)
    assert seen == passes
    for own, ordinary in zip(got, expected, strict=True):
        assert float((own - ordinary).norm()) <= 1e-6 * float(ordinary.norm())


@pytest.mark.parametrize("case", CASES)
def test_gradients_loss_and_logits_equal_the_ordinary_ones(case: str) -> None:
    model = make(case)
    assert type(model.get_base_model()).__name__ in PROVEN
    assert_equal(model, batch(), [(False, 7), (True, 5)])
    mask = torch.tensor([[0] * 2 + [1] * 10, [1] * 9 + [0] * 3])
    assert_equal(model, {**batch(), "attention_mask": mask}, [(False, 7), (True, 5)])


def test_every_proven_class_is_tested() -> None:
    found = {type(make(case).get_base_model()).__name__ for case in CASES}
    assert found == set(PROVEN)


_LLAMA = make()


@given(st.data())
@settings(deadline=None, max_examples=25)
def test_equal_for_random_hits_paddings_and_labels(data: st.DataObject) -> None:
    sizes = st.integers(1, 3), st.integers(2, LENGTH)
    size, length = data.draw(sizes[0]), data.draw(sizes[1])
    rows = st.lists(st.integers(0, VOCABULARY - 1), min_size=length, max_size=length)
    tokens = torch.tensor(data.draw(st.lists(rows, min_size=size, max_size=size)))
    pads = torch.tensor(data.draw(st.lists(st.integers(0, length - 1), min_size=size, max_size=size)))
    left = data.draw(st.booleans())
    place = torch.arange(length)
    mask = (place >= pads[:, None] if left else place < length - pads[:, None]).long()
    ignored = torch.tensor(data.draw(st.lists(st.integers(0, length - 2), min_size=size, max_size=size)))
    labels = tokens.masked_fill((mask == 0) | (place < ignored[:, None]), -100)
    labels[0, -1] = 5
    inputs: dict[str, Any] = {"input_ids": tokens, "labels": labels, "attention_mask": mask}
    if data.draw(st.booleans()):
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    if data.draw(st.booleans()):
        inputs["num_items_in_batch"] = data.draw(st.sampled_from([7, torch.tensor(31)]))
    hits = torch.isin(tokens, torch.tensor(CHOSEN)).any(dim=0).tolist()
    cut = hits.index(True) if True in hits else length
    if cut == length:
        expected = _LLAMA(**inputs).loss
        with skip_unused_gradients(_LLAMA, shortest=1):
            loss, _, gradient = step(_LLAMA, inputs)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        assert not gradient.any()
    else:
        assert_equal(_LLAMA, inputs, [(False, cut), (True, length - cut)] if cut else [(True, length)])


def test_float32_gradients_are_equal_to_rounding() -> None:
    model = make().float()
    with torch.no_grad():
        for parameter in model.get_base_model().parameters():
            parameter.mul_(0.3)
    assert_equal(model, batch(), [(False, 7), (True, 5)])


def test_a_batch_without_a_hit_takes_no_gradient_and_gives_zeros() -> None:
    model, inputs = make(), batch(first=LENGTH)
    with torch.no_grad():
        expected = model(**inputs)
    for given_inputs in (inputs, {"input_ids": inputs["input_ids"]}):
        with skip_unused_gradients(model), recorded(model) as passes:
            loss, logits, gradient = step(model, given_inputs)
        assert passes == [(False, LENGTH)]
        assert torch.equal(gradient, torch.zeros_like(gradient))
        assert torch.equal(logits, expected.logits)
        assert "labels" not in given_inputs or loss == pytest.approx(expected.loss.item(), rel=1e-6)


def test_a_loss_taken_from_the_logits_has_the_same_gradient() -> None:
    assert_equal(make(), {"input_ids": batch()["input_ids"]}, [(False, 7), (True, 5)])


def test_a_short_prefix_goes_the_ordinary_way_bit_for_bit() -> None:
    model = make()
    expected = step(model, batch())
    with skip_unused_gradients(model, shortest=8), recorded(model) as passes:
        got = step(model, batch())
    assert passes == [(True, LENGTH)]
    assert all(torch.equal(own, ordinary) for own, ordinary in zip(got, expected, strict=True))


def test_the_first_hit_of_any_sequence_and_of_any_change() -> None:
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    change = {row: RowChange(torch.tensor([row]), torch.zeros(1, 2)) for row in (2, 7, 9)}
    assert first_hit(tokens, [change[7]]) == 2
    assert first_hit(tokens, [change[7], change[2]]) == 1
    assert first_hit(tokens, [change[9]]) == 4
    assert first_hit(tokens, []) == 4


def test_two_active_adapters_train_together() -> None:
    model = make()
    model.add_adapter("other", LotteryConfig(positions={"model.embed_tokens": [9]}, task_type="CAUSAL_LM"))
    model.base_model.set_adapter(["default", "other"])
    inputs = batch()
    inputs["input_ids"][inputs["input_ids"] == 9] = 10
    inputs["input_ids"][1, 5] = 9
    assert_equal(model, inputs, [(False, 5), (True, 7)])
    model.base_model.set_adapter("default")
    assert_equal(model, inputs, [(False, 7), (True, 5)])


def cache_of(output: Any) -> Any:
    return getattr(output, cache_field(output))


def test_a_cache_is_given_where_the_ordinary_pass_gives_one() -> None:
    model, inputs = make(), batch()
    with skip_unused_gradients(model, shortest=1):
        assert cache_of(model(**inputs)) is None
        assert cache_of(model(**inputs, use_cache=True)).get_seq_length() == LENGTH
        model.get_base_model().config.use_cache = True
        assert cache_of(model(**inputs)).get_seq_length() == LENGTH


PASSES_THROUGH: dict[str, Callable[[PeftModel], Any]] = {
    "evaluation": lambda model: model.eval()(**batch()),
    "packed sequences": lambda model: model(**batch(), position_ids=torch.arange(LENGTH).repeat(2, 1) % 8),
    "embeddings": lambda model: model(inputs_embeds=torch.ones(1, LENGTH, 16, dtype=torch.float64)),
    "a mask of its own": lambda model: model(
        **batch(), attention_mask=torch.ones(2, 1, LENGTH, LENGTH, dtype=torch.bool).tril()
    ),
    "some logits": lambda model: model(input_ids=batch()["input_ids"], logits_to_keep=3),
    "hidden states": lambda model: model(**batch(), output_hidden_states=True),
    "a tuple": lambda model: model(**batch(), return_dict=False),
    "positional arguments": lambda model: model.get_base_model()(batch()["input_ids"]),
    "targets of its own": lambda model: model(**batch(), shift_labels=batch()["labels"]),
    "disabled adapters": lambda model: disabled(model),
    "merged adapters": lambda model: merged(model),
}


def disabled(model: PeftModel) -> Any:
    with model.disable_adapter():
        return model(**batch())


def merged(model: PeftModel) -> Any:
    model.merge_adapter()
    return model(**batch())


@pytest.mark.parametrize("way", PASSES_THROUGH)
def test_what_cannot_be_split_goes_the_ordinary_way(way: str) -> None:
    model = make()
    expected = PASSES_THROUGH[way](model)
    model.unmerge_adapter() if way == "merged adapters" else None
    with skip_unused_gradients(model.train(), shortest=1), recorded(model) as passes:
        got = PASSES_THROUGH[way](model)
    assert len(passes) == ("embeddings" not in way)
    logits = [output[1] if way == "a tuple" else output.logits for output in (got, expected)]
    assert torch.equal(*logits)


def test_generation_and_passes_without_gradient_are_untouched() -> None:
    model = make()
    expected = model.generate(input_ids=batch()["input_ids"], max_new_tokens=4, do_sample=False)
    with skip_unused_gradients(model, shortest=1):
        assert torch.equal(model.generate(input_ids=batch()["input_ids"], max_new_tokens=4, do_sample=False), expected)
        with torch.no_grad(), recorded(model) as passes:
            model(**batch())
    assert passes == [(False, LENGTH)]


def test_compiled_models_go_the_ordinary_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    with skip_unused_gradients(model, shortest=1), recorded(model) as passes:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        model(**batch())
    assert passes == [(True, LENGTH)]


class Sentences(Dataset[dict[str, Tensor]]):
    """Sequences padded on the right, with one late ticket token, or with none."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(8, VOCABULARY, (20, LENGTH), generator=generator)
        self.tokens[torch.arange(12), 6 + torch.arange(12) % 4] = torch.tensor(CHOSEN).repeat(6)
        self.lengths = torch.randint(7, LENGTH + 1, (20,), generator=generator)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        mask = torch.arange(LENGTH) < self.lengths[number]
        tokens = self.tokens[number].where(mask, 0)
        return {"input_ids": tokens, "attention_mask": mask.long(), "labels": tokens.masked_fill(~mask, -100)}


def train(model: PeftModel, folder: Path) -> None:
    set_seed(0)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=5,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    Trainer(model=model, args=arguments, train_dataset=Sentences()).train()


def test_a_trainer_ends_with_the_same_rows(tmp_path: Path) -> None:
    ordinary, ours = make(), make()
    before = delta(ours).detach().clone()
    train(ordinary, tmp_path)
    with skip_unused_gradients(ours, shortest=1), recorded(ours) as passes:
        train(ours, tmp_path)
    assert {6, 7, LENGTH} <= {length for with_gradient, length in passes if not with_gradient}
    assert float((delta(ours) - before).detach().norm()) > 0.01 * float(before.norm())
    torch.testing.assert_close(delta(ours), delta(ordinary), rtol=1e-5, atol=1e-7)


def checkpointed(model: PeftModel) -> None:
    recompute(model.get_base_model())


def noisy(model: PeftModel) -> None:
    model.get_base_model().get_input_embeddings().neftune_noise_alpha = 5.0


def sharded(model: PeftModel) -> None:
    model.get_base_model().lm_head.weight.data = torch.empty(0)


def own_loss(model: PeftModel) -> None:
    model.get_base_model().loss_function = F.cross_entropy


def looks_ahead(model: PeftModel) -> None:
    model.get_base_model().config.is_causal = False


def with_states(model: PeftModel) -> None:
    model.get_base_model().config.output_hidden_states = True


def with_norm(model: PeftModel) -> None:
    model.get_base_model().model.norm.weight.requires_grad_()


CHANGES = {
    checkpointed: "gradient checkpointing drops the cache of keys and values. Train without one of the two.",
    noisy: "NEFTune scales its noise by the length of the batch. Train without one of the two.",
    sharded: "'lm_head.weight' is sharded over processes, which must take the same passes",
    own_loss: "the model has a loss of its own, which need not be a sum over positions.",
    looks_ahead: "its config says is_causal=False, so that positions see later ones.",
    with_states: "its config says output_hidden_states=True, and what that gives needs all positions at once.",
    with_norm: "'model.norm.weight' trains too, and every position has a gradient there. Use a ticket of input rows",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_models_that_cannot_be_trained_so_are_refused_at_first_and_in_training(
    change: Callable[[PeftModel], None],
) -> None:
    model = make()
    with skip_unused_gradients(model):
        change(model)
        with pytest.raises(AdapterError, match=f"first ticket token cannot be skipped: {CHANGES[change]}"):
            model(**batch())
    with pytest.raises(AdapterError, match=CHANGES[change]):
        skip_unused_gradients(model)
    assert "forward" not in vars(model.get_base_model())


OTHERS: dict[str, tuple[Callable[[], PeftModel], str]] = {
    "head": (lambda: make(positions={"lm_head": [3]}), "the ticket has no rows of the input embedding. Train it"),
    "both": (
        lambda: make(positions={"model.embed_tokens": [3], "lm_head": [3]}),
        r"'lm_head.ks_ticket_delta.default' trains too",
    ),
    "tied": (lambda: make(tie_word_embeddings=True), "'lm_head' shares the matrix of the input embedding"),
    "eager": (lambda: make(attn_implementation="eager"), "attn_implementation='eager' was not shown to give equal"),
    "rope": (
        lambda: make(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}),
        r"'model.rotary_emb' rotates by the length of the batch \(rope_type 'dynamic'\)",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_tickets_and_models_are_refused(other: str) -> None:
    build, message = OTHERS[other]
    with pytest.raises(AdapterError, match=message):
        skip_unused_gradients(build())


def test_unknown_classes_are_refused() -> None:
    model = make()
    base = model.get_base_model()
    base.__class__ = type("OtherForCausalLM", (type(base),), {})
    with pytest.raises(
        AdapterError, match="OtherForCausalLM was not shown to give equal gradients so; those that were"
    ):
        skip_unused_gradients(model)


def test_the_model_that_attach_ticket_returned_is_needed() -> None:
    with pytest.raises(AdapterError, match="needs the model that attach_ticket returned, got LlamaForCausalLM"):
        skip_unused_gradients(make().get_base_model())


def test_undoing_restores_the_ordinary_pass() -> None:
    model = make()
    base = model.get_base_model()
    handle = skip_unused_gradients(model, shortest=1)
    with pytest.raises(AdapterError, match=r"skips unused gradients already. Call remove\(\)"):
        skip_unused_gradients(model)
    handle.remove()
    assert "forward" not in vars(base)
    with recorded(model) as passes:
        step(model, batch())
    assert passes == [(True, LENGTH)]


def test_undoing_leaves_the_wrappers_of_others() -> None:
    model = make()
    base = model.get_base_model()
    ordinary = base.forward
    inner = lambda **inputs: ordinary(**inputs)  # noqa: E731
    base.forward = inner
    handle = skip_unused_gradients(model, shortest=1)
    outer = lambda **inputs: handle(**inputs)  # noqa: E731
    base.forward = outer
    handle.remove()
    assert base.forward is outer
    with recorded(model) as passes:
        step(model, batch())
    assert passes == [(True, LENGTH)]
    base.forward = handle
    handle.remove()
    assert base.forward is inner


def test_the_signature_is_the_ordinary_one_and_copies_are_their_own() -> None:
    model = make()
    base = model.get_base_model()
    signature = inspect.signature(base.forward)
    with skip_unused_gradients(model, shortest=1):
        assert inspect.signature(base.forward) == signature
        twin = copy.deepcopy(model)
        with recorded(model) as passes, recorded(twin) as own_passes:
            step(twin, batch())
    assert (passes, own_passes) == ([], [(False, 7), (True, 5)])
