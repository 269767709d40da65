"""Model cards of exports."""

from __future__ import annotations

from caspi.export.cards import original_card

NATIVE = """library_name: transformers
# A model

## Use
```python
prompt += "language Scottish Gaelic<asr_text>"
```

## Data
"""


def test_the_language_of_the_native_card_is_kept() -> None:
    card = original_card(NATIVE, None)
    assert "language Scottish Gaelic<asr_text>" in card
    assert "prompt +=" not in card
    assert "## Data" in card
    assert "language Hebrew<asr_text>" in original_card("# REPOSITORY\n", None)
