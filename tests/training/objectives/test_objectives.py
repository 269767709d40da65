"""Distillation and the sequence objective: their losses and gradients, and their effect."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caspi import commands
from caspi.errors import UsageError
from caspi.inference.engine.network import Network
from caspi.inference.sampling import sample_hypotheses
from caspi.model.batch import Batch, FeatureMasks, TargetText, collate, pack
from caspi.model.config import ModelConfig
from caspi.model.forward import forward_audio, label_logits
from caspi.model.loading import LoadedModel, load
from caspi.model.prompt import Example
from caspi.training.objective_config import SequenceObjective
from caspi.training.objectives.cross_entropy import CrossEntropy
from caspi.training.objectives.distillation import Distillation, load_frozen
from caspi.training.objectives.grpo import GroupRelativePolicy
from tests.support import accelerate_environment, items, logged, metrics, run_recipe

NOTHING = Example([], [])


def batch(loaded: LoadedModel, masks: FeatureMasks | None = None, epoch: int = 0) -> Batch:
    clips = [replace(item, row=number) for number, item in enumerate(items(1.0, 2.5, 4.0))]
    return collate(clips, loaded.prompt, masks, epoch)


def teacher(loaded: LoadedModel, noise: float = 0.02) -> torch.nn.Module:
    model = load_frozen(ModelConfig(start="tiny"), torch.device("cpu"), None, compiled=False)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return model


def test_distillation_equals_torchs_divergence(fresh_tiny: LoadedModel) -> None:
    """Half of the loss is the transcript's cross-entropy. The teacher gets the audio without masks."""
    masks = FeatureMasks(torch.tensor([[[0, 60]]] * 3), torch.tensor([[[10, 50]]] * 3))
    given, model, other = batch(fresh_tiny, masks), fresh_tiny.model, teacher(fresh_tiny)
    objective = Distillation(model, None, other, 0.5)  # type: ignore[arg-type]
    loss = objective(given)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    student_logits = label_logits(model, given)
    with torch.no_grad():
        teacher_probabilities = label_logits(other, replace(given, masks=None)).softmax(dim=1)  # type: ignore[arg-type]
    divergence = torch.nn.functional.kl_div(student_logits.log_softmax(dim=1), teacher_probabilities, reduction="sum")
    expected = 0.5 * torch.nn.functional.cross_entropy(student_logits, given.labels, reduction="sum") + 0.5 * divergence
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    pairs = [(found[name], p.grad) for name, p in model.named_parameters() if p.grad is not None]
    difference = sum(float(torch.sum((one - other).double() ** 2)) for one, other in pairs)
    assert difference**0.5 < 1e-4 * sum(float(torch.sum(other.double() ** 2)) for _, other in pairs) ** 0.5
    assert not any(p.grad is not None for p in other.parameters())


def test_the_parts_of_an_objective_are_logged_separately(fresh_tiny: LoadedModel) -> None:
    """Each is per target token and unweighted; their weighted sum is the loss."""
    given, other = batch(fresh_tiny), teacher(fresh_tiny)
    objective = Distillation(fresh_tiny.model, None, other, 0.25)  # type: ignore[arg-type]
    loss = float(objective(given)) / len(given.labels)
    plain = float(CrossEntropy(fresh_tiny.model)(given)) / len(given.labels)
    notes = objective.take_metrics()
    assert notes["cross_entropy"] == pytest.approx(plain, rel=1e-4)
    assert 0.75 * notes["cross_entropy"] + 0.25 * notes["kl"] == pytest.approx(loss, rel=1e-4)
    assert objective.take_metrics() == {}


def test_the_log_of_the_sequence_objective_contains_its_parts(small_corpus: Path, tmp_path: Path) -> None:
    override = "train.stages.1.objective={kind: sequence, hypotheses: 2, kl: 0.1}"
    commands.train.run(run_recipe(tmp_path, small_corpus, override, "train.stages.1.epochs=0.3"))
    rows = logged(tmp_path / "train", "loss", "all")
    for row in rows:
        assert {"reward", "reward_spread", "no_spread", "hypothesis_tokens", "kl"} <= row.keys()
        assert -1 <= row["reward"] <= 0
        assert 0 <= row["no_spread"] <= 1
        assert row["kl"] >= -1e-4


def test_a_student_converges_to_its_teacher(fresh_tiny: LoadedModel) -> None:
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


def test_a_teacher_of_another_vocabulary_is_refused_before_the_first_stage(small_corpus: Path, tmp_path: Path) -> None:
    other = load(ModelConfig(start="tiny"))
    other.processor.tokenizer.add_tokens(["ועוד"])
    other.model.save_pretrained(tmp_path / "other")
    other.processor.save_pretrained(tmp_path / "other")
    override = f"train.stages.1.objective={{kind: distillation, teacher: {tmp_path / 'other'}}}"
    with pytest.raises(UsageError, match=r"stage all: teacher .* has another vocabulary"):
        commands.train.run(run_recipe(tmp_path, small_corpus, override))
    assert not (tmp_path / "train").exists()


def test_a_frozen_model_keeps_its_rotary_angles_in_fp32() -> None:
    model = load_frozen(ModelConfig(start="tiny"), torch.device("cpu"), torch.bfloat16, compiled=False)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}


def drawn(loaded: LoadedModel, given: Batch, count: int, first: int = 0) -> list[list[list[int]]]:
    rows = [item.example.prompt + loaded.prompt.language_prefix(item.language) for item in given.items]
    draws = [np.random.default_rng(first + row).random((count, 12)) for row in given.rows]
    with torch.no_grad():
        return sample_hypotheses(loaded.model, loaded.prompt, rows, forward_audio(loaded.model, given), draws)


def test_sampled_hypotheses_do_not_depend_on_the_batch(tiny: LoadedModel) -> None:
    together = drawn(tiny, batch(tiny), 3)
    clips = [replace(item, row=number) for number, item in enumerate(items(1.0, 2.5, 4.0))]
    alone = [drawn(tiny, collate([clip], tiny.prompt), 3)[0] for clip in clips]
    assert together == alone
    assert len({tuple(tokens) for tokens in together[2]}) > 1
    assert drawn(tiny, batch(tiny), 3, first=9) != together


def test_first_tokens_are_sampled_with_their_probability(tiny: LoadedModel) -> None:
    given = collate([replace(items(2.5)[0], row=0)], tiny.prompt)
    row = given.items[0].example.prompt + tiny.prompt.language_prefix("Hebrew")
    with torch.no_grad():
        logits = label_logits(tiny.model, given)[len(tiny.prompt.language_prefix("Hebrew"))]
    likely = logits.softmax(dim=0)
    draws = [np.random.default_rng(0).random((4000, 1))]
    with torch.no_grad():
        [sampled] = sample_hypotheses(tiny.model, tiny.prompt, [row], forward_audio(tiny.model, given), draws)
    often = torch.bincount(torch.tensor([tokens[0] for tokens in sampled]), minlength=len(likely)) / len(sampled)
    assert float((often - likely).abs().sum()) < 0.35  # total variation 0.17: some 600 tokens, 4,000 draws
    assert float((often - likely).abs().max()) < 0.02


def objective(loaded: LoadedModel, reference: object = None, **options: float) -> GroupRelativePolicy:
    config = SequenceObjective.model_validate({"kl": 0.0, "cross_entropy": 0.0} | options)
    return GroupRelativePolicy(loaded.model, None, config, loaded.prompt, reference, 0)  # type: ignore[arg-type]


def test_value_and_gradient_equal_the_formula(fresh_tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three samples of two hypotheses, the better one twice; computed with torch from all logits. Both models get the
    masked audio."""
    masks = FeatureMasks(torch.tensor([[[0, 60]]] * 3), torch.tensor([[[10, 50]]] * 3))
    given, model, prompt = batch(fresh_tiny, masks), fresh_tiny.model, fresh_tiny.prompt
    reference = teacher(fresh_tiny)
    forced = prompt.language_prefix("Hebrew")
    targets = [prompt.example(0, item.text, "Hebrew").target for item in given.items]
    near = [target[len(forced) :] for target in targets]
    far = [tokens[3:] for tokens in near]
    hypotheses = [[one, two, one] for one, two in zip(near, far, strict=True)]
    monkeypatch.setattr("caspi.training.objectives.grpo.sample_hypotheses", lambda *_: hypotheses)
    options = {"hypotheses": 3, "kl": 0.3, "cross_entropy": 0.2}
    loss = objective(fresh_tiny, reference, **options)(given)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    def logits(of: Any, rows: list[list[int]], answers: list[list[int]]) -> list[torch.Tensor]:
        examples = [Example(row, answer) for row, answer in zip(rows, answers, strict=True)]
        every = label_logits(of, replace(given, sequences=pack(examples, prompt)))
        return list(every.log_softmax(dim=1).split([len(answer) for answer in answers]))

    plain, forced_prompts = (
        [item.example.prompt for item in given.items],
        [item.example.prompt + forced for item in given.items],
    )
    expected = torch.zeros(())
    for target, pred in zip(targets, logits(model, plain, targets), strict=True):
        expected = expected - 0.2 * pred[range(len(target)), target].sum()
    spread = (2 / 9) ** 0.5  # two rewards are 0, one is lower: the mean is a third of it
    for answers, share, better in ((near, 2 / 3, 1 / 3), (far, 1 / 3, -2 / 3)):
        with torch.no_grad():
            reference_logits = logits(reference, forced_prompts, answers)
        for target, answer, pred, other in zip(
            targets, answers, logits(model, forced_prompts, answers), reference_logits, strict=True
        ):
            weight = share * len(target) / len(answer)
            expected = expected - weight * better / spread * pred[range(len(answer)), answer].sum()
            expected = expected + 0.3 * weight * (other.exp() * (other - pred)).sum()
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    pairs = [(found[name], p.grad) for name, p in model.named_parameters() if p.grad is not None]
    difference = sum(float(torch.sum((one - other).double() ** 2)) for one, other in pairs)
    assert difference**0.5 < 1e-4 * sum(float(torch.sum(other.double() ** 2)) for _, other in pairs) ** 0.5


@pytest.mark.parametrize("kind", ["distillation", "sequence"])
def test_micro_batches_do_not_change_the_gradient(kind: str, fresh_tiny: LoadedModel) -> None:
    other = teacher(fresh_tiny)
    made = (
        Distillation(fresh_tiny.model, None, other, 0.5)  # type: ignore[arg-type]
        if kind == "distillation"
        else objective(fresh_tiny, other, hypotheses=3, kl=0.1, cross_entropy=0.1)
    )
    clips = [replace(item, row=number) for number, item in enumerate(items(1.0, 2.5, 4.0, 1.7))]
    found = []
    for parts in ([clips], [clips[:1], clips[1:]], [clips[2:], clips[:2]]):
        fresh_tiny.model.zero_grad()
        for part in parts:
            made(collate(part, fresh_tiny.prompt)).backward()
        gradients = [p.grad.flatten() for p in fresh_tiny.model.parameters() if p.grad is not None]
        found.append(torch.cat(gradients).double())
    for other_way in found[1:]:
        assert (other_way - found[0]).norm() < 1e-5 * found[0].norm()


def advantages(loaded: LoadedModel, text: str, *hypotheses: str) -> list[float]:
    made = objective(loaded, hypotheses=len(hypotheses))
    tokens = [[*loaded.prompt._encode_plain(one), loaded.prompt.end] for one in hypotheses]
    return [advantage / share for _, share, advantage in made._advantages(TargetText(text, "Hebrew", NOTHING), tokens)]


def test_the_reward_orders_hypotheses_and_ignores_times(fresh_tiny: LoadedModel) -> None:
    right, wrong, silent = advantages(fresh_tiny, "שלום לכולם", "שלום, לכולם!", "שלום עולם", "")
    assert right > wrong > silent
    hypotheses = ("<0.2>שלום לכולם<1.7>", "<0.1>שלום<0.9>", "שלום לכולם")
    early, late, without = advantages(fresh_tiny, "<0.1>שלום לכולם<0.9>", *hypotheses)
    assert early == without > late
    assert advantages(fresh_tiny, "", "אבג", "") == [-1.0, 1.0]


def test_text_before_a_repeated_language_token_is_scored(fresh_tiny: LoadedModel) -> None:
    """Decoding reads what stands before the second language token as text."""
    prompt, made = fresh_tiny.prompt, objective(fresh_tiny, hypotheses=2)
    honest = [*prompt._encode_plain("שלום"), prompt.end]
    junk = [*prompt._encode_plain("בלה בלה"), prompt.asr_text, *honest]
    [(_, _, better), (_, _, worse)] = made._advantages(TargetText("שלום", "Hebrew", NOTHING), [honest, junk])
    assert better > worse


def test_noise_is_trained_only_on_its_transcript(fresh_tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caspi.training.objectives.grpo.sample_hypotheses", lambda *_: [[[300, 301], [302]]])
    given = collate([replace(items(2.5)[0], text="", language="None", row=0)], fresh_tiny.prompt)
    loss = objective(fresh_tiny, hypotheses=2, cross_entropy=0.5)(given)
    assert float(loss) == pytest.approx(0.5 * float(CrossEntropy(fresh_tiny.model)(given)), rel=1e-5)


def test_a_model_stays_in_training_mode_if_sampling_runs_out_of_memory(
    fresh_tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh_tiny.model.train()
    monkeypatch.setattr(Network, "step_pass", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        objective(fresh_tiny, hypotheses=2)(batch(fresh_tiny))
    assert fresh_tiny.model.training


def test_identical_hypotheses_give_no_gradient(fresh_tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hypotheses = [[[300, fresh_tiny.prompt.end]] * 3] * 3
    monkeypatch.setattr("caspi.training.objectives.grpo.sample_hypotheses", lambda *_: hypotheses)
    loss = objective(fresh_tiny, hypotheses=3)(batch(fresh_tiny))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(float(p.grad.abs().max()) == 0 for p in fresh_tiny.model.parameters() if p.grad is not None)


def test_with_only_the_transcript_it_equals_cross_entropy(
    fresh_tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypotheses = [[[300, fresh_tiny.prompt.end]] * 2] * 3
    monkeypatch.setattr("caspi.training.objectives.grpo.sample_hypotheses", lambda *_: hypotheses)
    given = batch(fresh_tiny)
    found = objective(fresh_tiny, hypotheses=2, cross_entropy=0.3)(given)
    assert float(found) == pytest.approx(0.3 * float(CrossEntropy(fresh_tiny.model)(given)), rel=1e-5)


def test_the_divergence_keeps_the_model_near_the_reference(fresh_tiny: LoadedModel) -> None:
    """The divergence is 0 at the start and grows with the distance from the reference."""
    reference = load_frozen(ModelConfig(start="tiny"), torch.device("cpu"), None, compiled=False)
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
def test_a_recipe_stage_trains_and_resumes(kind: str, small_corpus: Path, tmp_path: Path) -> None:
    """Resumed from its first checkpoint, it gives the same losses."""
    objective_config = (
        "{kind: distillation, teacher: tiny}" if kind == "distillation" else "{kind: sequence, hypotheses: 2}"
    )
    made = run_recipe(
        tmp_path,
        small_corpus,
        f"train.stages.1.objective={objective_config}",
        "train.evaluate.every=3",
        "train.evaluate.utterances=2",
    )
    commands.train.run(made)
    whole = metrics(tmp_path / "train", "loss")
    assert np.isfinite(whole).all()
    stage = tmp_path / "train" / "2-all"
    for folder in (stage, tmp_path / "train"):
        for later in [*folder.glob("stage.json"), *folder.glob("report.*"), *sorted(folder.glob("checkpoint-*"))[1:]]:
            shutil.rmtree(later) if later.is_dir() else later.unlink()
    commands.train.run(made)
    assert metrics(tmp_path / "train", "loss") == pytest.approx(whole, rel=1e-6)


def test_sampling_from_sharded_weights_is_refused(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in accelerate_environment("fsdp2").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="stage all: hypotheses cannot be sampled from sharded weights"):
        commands.train.run(run_recipe(tmp_path, small_corpus, "train.stages.1.objective={kind: sequence}"))
