"""Distillation and the sequence objective: what they minimise, and that they do what they are for."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from caspi import commands
from caspi.errors import UsageError
from caspi.inference.decoding import Clip, Decoder, prefill
from caspi.inference.sampling import sample
from caspi.model.config import ModelConfig
from caspi.model.loading import Loaded, load
from caspi.training.augmentation import FeatureMasks
from caspi.training.collation import Batch, collate
from caspi.training.objective_config import SequenceObjective
from caspi.training.objectives import CrossEntropy, Distillation, forward_audio, frozen, label_logits
from caspi.training.sequence import Sequence
from tests.model.test_packed import items
from tests.training.test_sharding import accelerate_environment
from tests.training.test_stages import metrics, run_recipe


def batch(loaded: Loaded, masks: FeatureMasks | None = None, epoch: int = 0) -> Batch:
    clips = [replace(item, row=number) for number, item in enumerate(items(1.0, 2.5, 4.0))]
    return collate(clips, loaded.prompt, masks, epoch)


def teacher(loaded: Loaded, noise: float = 0.02) -> torch.nn.Module:
    model = frozen(ModelConfig(start="tiny"), loaded.prompt, torch.device("cpu"), None, compiled=False)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return model


def test_distillation_is_the_divergence_torch_computes(fresh_tiny: Loaded) -> None:
    """Half of it the transcript's cross-entropy. The teacher hears what is masked."""
    masks = FeatureMasks(torch.tensor([[[0, 60]]] * 3), torch.tensor([[[10, 50]]] * 3))
    given, model, other = batch(fresh_tiny, masks), fresh_tiny.model, teacher(fresh_tiny)
    objective = Distillation(model, None, other, 0.5)  # type: ignore[arg-type]
    loss = objective(given)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    said = label_logits(model, given)
    with torch.no_grad():
        theirs = label_logits(other, replace(given, masks=None)).softmax(dim=1)  # type: ignore[arg-type]
    apart = torch.nn.functional.kl_div(said.log_softmax(dim=1), theirs, reduction="sum")
    expected = 0.5 * torch.nn.functional.cross_entropy(said, given.labels, reduction="sum") + 0.5 * apart
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    pairs = [(found[name], p.grad) for name, p in model.named_parameters() if p.grad is not None]
    difference = sum(float(torch.sum((one - other).double() ** 2)) for one, other in pairs)
    assert difference**0.5 < 1e-4 * sum(float(torch.sum(other.double() ** 2)) for _, other in pairs) ** 0.5
    assert not any(p.grad is not None for p in other.parameters())


def test_a_student_ends_where_its_teacher_is(fresh_tiny: Loaded) -> None:
    given, other = batch(fresh_tiny), teacher(fresh_tiny, 0.01)
    objective = Distillation(fresh_tiny.model, None, other, 1.0)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(fresh_tiny.model.parameters(), 1e-4)
    apart = []
    for _ in range(12):
        loss = objective(given)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        apart.append(float(loss.detach()))
    assert apart[-1] < 0.2 * apart[0]
    assert apart[-1] >= 0


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path: Path, fresh_tiny: Loaded) -> None:
    other = load(ModelConfig(start="tiny"))
    other.processor.tokenizer.add_tokens(["ועוד"])
    other.model.save_pretrained(tmp_path / "other")
    other.processor.save_pretrained(tmp_path / "other")
    with pytest.raises(UsageError, match="has another vocabulary"):
        frozen(ModelConfig(start=str(tmp_path / "other")), fresh_tiny.prompt, torch.device("cpu"), None, compiled=False)


def drawn(loaded: Loaded, given: Batch, count: int, temperature: float = 1.0, first: int = 0) -> list[list[list[int]]]:
    rows = [item.prompt + loaded.prompt.language_prefix(item.language) for item in given.items]
    draws = [np.random.default_rng(first + row).random((count, 12)) for row in given.rows]
    with torch.no_grad():
        return sample(loaded.model, loaded.prompt, rows, forward_audio(loaded.model, given), draws, temperature)


def test_what_is_drawn_is_the_same_in_any_company(tiny: Loaded) -> None:
    together = drawn(tiny, batch(tiny), 3)
    clips = [replace(item, row=number) for number, item in enumerate(items(1.0, 2.5, 4.0))]
    alone = [drawn(tiny, collate([clip], tiny.prompt), 3)[0] for clip in clips]
    assert together == alone
    assert len({tuple(tokens) for tokens in together[2]}) > 1
    assert drawn(tiny, batch(tiny), 3, first=9) != together


def test_cold_draws_are_greedy(tiny: Loaded) -> None:
    decoded = Decoder(tiny).decode([Clip(item.samples, item.context, "Hebrew") for item in items(1.0, 2.5, 4.0)])
    cold = drawn(tiny, batch(tiny), 2, temperature=1e-4)
    for found, [one, other] in zip(decoded, cold, strict=True):
        assert one == other
        assert found.text.startswith(tiny.prompt.parse(one)[1][:5])


def test_first_tokens_are_drawn_as_often_as_they_are_likely(tiny: Loaded) -> None:
    given = collate([replace(items(2.5)[0], row=0)], tiny.prompt)
    row = given.items[0].prompt + tiny.prompt.language_prefix("Hebrew")
    with torch.no_grad():
        embeddings, mask = prefill(tiny.model, tiny.prompt, [row], forward_audio(tiny.model, given))
        tiny.model.config.text_config._attn_implementation, packed = "sdpa", "caspi_flash_packed"
        logits = tiny.model(inputs_embeds=embeddings, attention_mask=mask).logits[0, -1]
        tiny.model.config.text_config._attn_implementation = packed
    likely = logits.softmax(dim=0)
    draws = [np.random.default_rng(0).random((4000, 1))]
    with torch.no_grad():
        [said] = sample(tiny.model, tiny.prompt, [row], forward_audio(tiny.model, given), draws, 1.0)
    often = torch.bincount(torch.tensor([tokens[0] for tokens in said]), minlength=len(likely)) / len(said)
    assert float((often - likely).abs().sum()) < 0.35  # total variation 0.17: some 600 tokens, 4,000 draws
    assert float((often - likely).abs().max()) < 0.02


def objective(loaded: Loaded, reference: object = None, **options: float) -> Sequence:
    how = SequenceObjective.model_validate({"kl": 0.0, "cross_entropy": 0.0} | options)
    return Sequence(loaded.model, None, how, loaded.prompt, reference, 0)  # type: ignore[arg-type]


def test_better_hypotheses_become_likelier(fresh_tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that are said, the one nearer to the transcript gains, and the gradient is the difference of theirs."""
    given = batch(fresh_tiny)
    prompt = fresh_tiny.prompt
    near = [
        prompt.example(0, item.text, "Hebrew").target[len(prompt.language_prefix("Hebrew")) :] for item in given.items
    ]
    far = [[tokens[0], *tokens[2:]] for tokens in near]
    monkeypatch.setattr(
        "caspi.training.sequence.sample", lambda *_: [list(pair) for pair in zip(near, far, strict=True)]
    )

    def likelihood(chosen: list[list[int]]) -> float:
        total = 0.0
        for item, tokens in zip(items(1.0, 2.5, 4.0), chosen, strict=True):
            one = collate([item], prompt)
            example = one.items[0].prompt + prompt.language_prefix("Hebrew")
            total += _log_likelihood(fresh_tiny, one, example, tokens)
        return total

    before = likelihood(near) - likelihood(far)
    optimizer = torch.optim.SGD(fresh_tiny.model.parameters(), 1e-4)
    for _ in range(3):
        objective(fresh_tiny, hypotheses=2)(given).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert likelihood(near) - likelihood(far) > before + 0.1


def _log_likelihood(loaded: Loaded, one: Batch, row: list[int], tokens: list[int]) -> float:
    from caspi.model.prompt import Example
    from caspi.training.collation import pack

    with torch.no_grad():
        logits = label_logits(loaded.model, replace(one, sequences=pack([Example(row, tokens)], loaded.prompt)))
    return float(logits.log_softmax(dim=1)[torch.arange(len(tokens)), torch.tensor(tokens)].sum())


def test_alike_hypotheses_teach_nothing(fresh_tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [[[300, fresh_tiny.prompt.end]] * 3] * 3
    monkeypatch.setattr("caspi.training.sequence.sample", lambda *_: said)
    loss = objective(fresh_tiny, hypotheses=3)(batch(fresh_tiny))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(float(p.grad.abs().max()) == 0 for p in fresh_tiny.model.parameters() if p.grad is not None)


def test_with_the_transcript_alone_it_is_cross_entropy(fresh_tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [[[300, fresh_tiny.prompt.end]] * 2] * 3
    monkeypatch.setattr("caspi.training.sequence.sample", lambda *_: said)
    given = batch(fresh_tiny)
    found = objective(fresh_tiny, hypotheses=2, cross_entropy=0.3)(given)
    assert float(found) == pytest.approx(0.3 * float(CrossEntropy(fresh_tiny.model)(given)), rel=1e-5)


def test_the_reference_holds_it_near(fresh_tiny: Loaded) -> None:
    """Where it begins the divergence is nothing; away from there it grows, and its gradient leads back."""
    reference = frozen(ModelConfig(start="tiny"), fresh_tiny.prompt, torch.device("cpu"), None, compiled=False)
    given = batch(fresh_tiny)
    held = objective(fresh_tiny, reference, hypotheses=2, kl=1.0)
    free = objective(fresh_tiny, hypotheses=2)
    assert float(held(given) - free(given)) == pytest.approx(0, abs=1e-3)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in fresh_tiny.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    assert float(held(given) - free(given)) > 1


@pytest.mark.parametrize("kind", ["distillation", "sequence"])
def test_a_stage_in_a_recipe(kind: str, small_corpus: Path, tmp_path: Path) -> None:
    """Gone on with from its first checkpoint it is the same run."""
    how = "{kind: distillation, teacher: tiny}" if kind == "distillation" else "{kind: sequence, hypotheses: 2}"
    made = run_recipe(
        tmp_path,
        small_corpus,
        f"train.stages.1.objective={how}",
        "train.evaluate.every=3",
        "train.evaluate.utterances=2",
    )
    commands.train(made)
    whole = metrics(tmp_path / "train", "loss")
    assert np.isfinite(whole).all()
    stage = tmp_path / "train" / "2-all"
    for folder in (stage, tmp_path / "train"):
        for later in [*folder.glob("stage.json"), *folder.glob("report.*"), *sorted(folder.glob("checkpoint-*"))[1:]]:
            shutil.rmtree(later) if later.is_dir() else later.unlink()
    commands.train(made)
    assert metrics(tmp_path / "train", "loss") == pytest.approx(whole, rel=1e-6)


def test_hypotheses_are_not_drawn_from_sharded_weights(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in accelerate_environment("fsdp2").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="stage all: hypotheses are not drawn from sharded weights"):
        commands.train(run_recipe(tmp_path, small_corpus, "train.stages.1.objective={kind: sequence}"))
