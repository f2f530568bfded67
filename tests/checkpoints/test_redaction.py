"""Tokens, passwords and signatures do not get into texts."""

import pytest

from ks_lottery.checkpoints.redaction import HIDDEN, holds_token, redacted

TOKEN = "hf_" + "aB3" * 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token {TOKEN} is wrong", f"token {HIDDEN} is wrong"),
        ("Authorization: Bearer abc.def-1", f"Authorization: Bearer {HIDDEN}"),
        ("https://me:secret@mirror.example/x", f"https://{HIDDEN}@mirror.example/x"),
        (
            "https://cdn.example/f?X-Amz-Signature=abc&size=3&Key-Pair-Id=K1",
            f"https://cdn.example/f?X-Amz-Signature={HIDDEN}&size=3&Key-Pair-Id={HIDDEN}",
        ),
        ("https://huggingface.co/user/model@main", "https://huggingface.co/user/model@main"),
        ("hf_hub_download failed; set HF_TOKEN", "hf_hub_download failed; set HF_TOKEN"),
    ],
)
def test_what_is_secret_is_hidden(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert redacted(text) == expected


def test_the_token_of_the_environment_is_hidden_whatever_it_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "opensesame")
    assert redacted("say opensesame") == f"say {HIDDEN}"
    assert holds_token("say opensesame")
    monkeypatch.setenv("HF_TOKEN", "")
    assert not holds_token("say opensesame")
    assert holds_token(f"x {TOKEN}")
    assert not holds_token("hf_fake")
