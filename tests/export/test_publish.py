"""Publishing: what is checked first, what the card says, what goes up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from caspi import commands, recipe
from caspi.errors import CaspiError, UsageError
from caspi.evaluation.options import EvaluationOptions
from tests.export.test_adapters import LORA, trained
from tests.support import needs


class Hub:
    """Records the requests to the Hub."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self.calls.append((name, {"args": args, **options}))

    def texts(self) -> dict[str, str]:
        return {o["path_in_repo"]: o["path_or_fileobj"].decode() for name, o in self.calls if name == "upload_file"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr("caspi.hub.HfApi", lambda: made)
    return made


@pytest.fixture(scope="module")
def model(small_run: Path) -> str:
    final: str = json.loads((small_run / "report.json").read_text())["final"]
    return final


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with enough speech to compare programs on long clips too."""
    folder = tmp_path_factory.mktemp("tested")
    (folder / "recipe.yaml").write_text(
        f"name: tested\ncorpus: {{path: {folder / 'corpus'}, workers: 1, splits: {{}}, sources: "
        "[{kind: synthetic, utterances: 64, split: test, only: [m3], seed: 5}]}\n"
    )
    commands.prepare.run(recipe.load(folder / "recipe.yaml"))
    return folder / "corpus"


@pytest.fixture(scope="module")
def evaluation(model: str, tested: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "evaluation"
    commands.evaluate.run(model, [str(tested)], out, EvaluationOptions())
    return out


@pytest.mark.slow
def test_the_card_has_every_set_with_its_interval(model: str, evaluation: Path) -> None:
    outcome = commands.publish.run(model, "me/model", dry_run=True, evaluations=[evaluation])
    summary = json.loads((evaluation / "summary.json").read_text())
    card = outcome.summary["card"]
    [row] = [line for line in card.splitlines() if "(test)" in line]
    assert f"{summary['utterances']:,}" in row
    assert f"{100 * summary['leaderboard']['wer']:.1f} %" in row
    assert "| language |" in card
    assert "What the model forgot of other languages was not measured." in card
    assert card.index("## Evaluated") < card.index("## Use")
    assert outcome.text == f"{card}\n"
    assert "(private)" in outcome.line
    again = commands.publish.run(
        model, "me/model", dry_run=True, evaluations=[evaluation, evaluation], skip_parity=True
    )
    assert again.summary["card"].count("## Evaluated") == 1


@pytest.mark.slow
def test_programs_are_compared_before_anything_goes_up(
    model: str, evaluation: Path, tested: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="Give --parity a corpus, --evaluation, or --no-parity"):
        commands.publish.run(model, "me/model", dry_run=False)
    from caspi.parity import backends

    real = backends.transformers

    def other(name: str) -> backends.Backend:
        made = real(name)
        return backends.Backend(made.name, made.about, lambda clips: [f"{text} אחר" for text in made.recognise(clips)])

    with monkeypatch.context() as wrong:
        wrong.setattr(backends, "transformers", other)
        with pytest.raises(CaspiError, match="is not published"):
            commands.publish.run(model, "me/model", dry_run=False, parity=str(tested))
    assert hub.calls == []
    commands.publish.run(model, "me/model", dry_run=False, evaluations=[evaluation])
    assert hub.calls[0][1]["private"] is True
    assert "## Evaluated" in hub.texts()["README.md"]


def test_adapters_are_published_alone_or_beside_the_model(
    model: str, small_corpus: Path, tmp_path: Path, hub: Hub
) -> None:
    checkpoint = trained(tmp_path, small_corpus, f"{{decoder_layers: {{lr: 1e-2, lora: {LORA['plain']}}}}}")
    adapters = tmp_path / "adapters"
    commands.export.run(str(checkpoint), "peft", adapters)
    with pytest.raises(UsageError, match="its base is the local tiny, which nobody else has"):
        commands.publish.run(str(adapters), "me/adapters", dry_run=True)
    commands.publish.run(str(adapters), "me/adapters", dry_run=False, base="me/base", skip_parity=True)
    assert json.loads(hub.texts()["adapter_config.json"])["base_model_name_or_path"] == "me/base"
    assert 'from_pretrained("me/base")' in hub.texts()["README.md"]
    hub.calls.clear()
    commands.publish.run(model, "me/model", dry_run=False, adapters=adapters, skip_parity=True)
    folders = [(o.get("path_in_repo"), o["allow_patterns"]) for name, o in hub.calls if name == "upload_folder"]
    assert folders[1] == ("adapters", ["adapter_model.safetensors"])
    assert json.loads(hub.texts()["adapters/adapter_config.json"])["base_model_name_or_path"] == "me/model"


def test_what_is_no_evaluation_is_named(model: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no evaluation: give the folder that caspi evaluate wrote"):
        commands.publish.run(model, "me/model", dry_run=True, evaluations=[tmp_path])


@needs("gguf")
def test_llama_cpps_converter_knows_every_name_of_the_original_layout(tmp_path: Path) -> None:
    """Its tables of names are a package; the converter itself is not to be had."""
    import gguf

    commands.export.run("tiny", "qwen-asr", tmp_path / "out")
    decoder = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, 64)
    encoder = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, 64)
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        names = [name.removeprefix("thinker.") for name in file.keys()]  # noqa: SIM118 - no mapping
    unknown = [
        name
        for name in names
        if (encoder if name.startswith("audio_tower.") else decoder).get_name(name, (".weight", ".bias")) is None
    ]
    assert len(names) > 100
    assert unknown == []
