"""CONTRIBUTING's "add a language", done with a toy language: one module, one entry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from caspi import commands, language, recipe
from caspi.language import plain
from caspi.language.base import Language, Lookalike
from caspi.language.codes import named
from tests.conftest import ROOT, tone
from tests.language.test_plain import check_contract
from tests.support import write_manifest


def vowels_dropped(text: str) -> str:
    return re.sub("[aeiou](?=.)", "", text)


TOY = Language(
    name="Esperanto",  # the name in the prompt; its code stands in language/codes.py
    code="eo",
    training_text=plain.plain_language("Esperanto").training_text,
    rejection_reason=lambda cleaned, policy: "digits" if re.search(r"\d", cleaned) else None,
    script_share=lambda text: float(any(c.isalpha() for c in text)),
    rules=plain.plain_language("Esperanto").rules,
    normalisers=plain.plain_language("Esperanto").normalisers,
    standard="Whisper's basic normaliser",
    relaxations={"vowels": vowels_dropped},
    lookalikes=(Lookalike("Ido", "Esperanto", re.compile("-ido$"), lambda text: "ed" in text.split()),),
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Language:
    monkeypatch.setitem(language._LANGUAGES, TOY.name, TOY)
    return TOY


def test_the_table_of_contributing_names_the_place() -> None:
    row = next(line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| a language"))
    assert "src/caspi/language/" in row
    assert "_LANGUAGES" in row


def test_a_new_language_keeps_the_contract_and_is_found(toy: Language) -> None:
    check_contract(toy)
    assert language.language("Esperanto") is toy
    assert named("eo") == "Esperanto"


def test_its_rules_reach_scores(toy: Language, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"reference": "bona tago", "hypothesis": "bono tago"}\n', encoding="utf-8")
    summary = commands.score.run(path, "eo", tmp_path / "out").summary
    assert summary["fair"]["wer"] == 0.5
    assert "vowels" in summary["relaxations"]


def test_its_rules_reach_corpora(toy: Language, tmp_path: Path) -> None:
    """Clean text is kept; a digit, and text of the lookalike, are rejected with their reasons."""
    texts = ["bona tago", "granda domo", "3 domoj", "la urbo ed la vilajo"]
    write_manifest(tmp_path, [(tone(2.0, seed=n), text) for n, text in enumerate(texts)], language="Esperanto")
    made = recipe.Recipe.model_validate({
        "name": "toy", "language": "Esperanto",
        "corpus": {
            "path": tmp_path / "corpus", "sources": [{"kind": "manifest", "path": tmp_path / "m.jsonl"}], "workers": 1,
        },
    })  # fmt: skip
    summary = commands.prepare.run(made).summary
    assert summary["rejected"] == {"digits": 1, "ido": 1}
    assert summary["kept"] == 2
