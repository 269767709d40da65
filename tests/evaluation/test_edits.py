from __future__ import annotations

import jiwer
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi.evaluation.edits import Words, align, count

TEXT = st.lists(st.sampled_from(["שלום", "עולם", "ילד", "לא", "כן"]), min_size=1, max_size=12).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT)
def test_counts_are_jiwers(expected: str, said: str) -> None:
    words = Words()
    ours, theirs = count(words.encode(expected), words.encode(said)), jiwer.process_words(expected, said)
    assert (ours.hits, ours.substitutions, ours.deletions, ours.insertions) == (
        theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions,
    )  # fmt: skip
    ours, letters = count(expected, said), jiwer.process_characters(expected, said)
    assert (ours.hits, ours.substitutions, ours.deletions, ours.insertions) == (
        letters.hits, letters.substitutions, letters.deletions, letters.insertions,
    )  # fmt: skip


@given(TEXT, TEXT)
def test_an_alignment_holds_every_word_of_both_sides_once(expected: str, said: str) -> None:
    steps = align(expected.split(), said.split())
    assert [word for step in steps for word in step.expected] == expected.split()
    assert [word for step in steps for word in step.said] == said.split()
    assert all((step.kind == "equal") == (step.expected == step.said) for step in steps)
    words = Words()
    errors = sum(max(len(step.expected), len(step.said)) for step in steps if step.kind != "equal")
    assert errors == count(words.encode(expected), words.encode(said)).errors


def test_more_words_than_there_are_letters_of_one_alphabet() -> None:
    words = Words()
    text = " ".join(f"w{n}" for n in range(70_000))  # past the surrogates
    assert count(words.encode(text), words.encode(text + " more")).insertions == 1
