from __future__ import annotations

import jiwer
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi.scoring.edits import EditSpan, align, count, encode, path

WORDS = st.sampled_from(["שלום", "עולם", "ילד", "לא", "כן", "a", "שלו", "מ"])
TEXT = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)
MAYBE = st.lists(WORDS, max_size=12).map(" ".join)


@settings(max_examples=300)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_counts_equal_jiwer(pairs: list[tuple[str, str]]) -> None:
    counts = count([r for r, _ in pairs], [h for _, h in pairs])
    for index, (reference, hypothesis) in enumerate(pairs):
        jiwer_output, letters = (
            jiwer.process_words(reference, hypothesis),
            jiwer.process_characters(reference, hypothesis),
        )
        found = [
            int(column[index]) for column in (counts.hits, counts.substitutions, counts.deletions, counts.insertions)
        ]
        assert found == [jiwer_output.hits, jiwer_output.substitutions, jiwer_output.deletions, jiwer_output.insertions]
        assert counts.character_errors[index] / counts.characters[index] == letters.cer


@given(st.lists(st.tuples(MAYBE, MAYBE), max_size=8))
def test_empty_texts_are_counted(pairs: list[tuple[str, str]]) -> None:
    counts = count([r for r, _ in pairs], [h for _, h in pairs])
    assert counts.words.tolist() == [len(r.split()) for r, _ in pairs]
    assert counts.hypothesis_words.tolist() == [len(h.split()) for _, h in pairs]
    assert counts.characters.tolist() == [len(r) for r, _ in pairs]
    for column in (counts.hits, counts.substitutions, counts.deletions, counts.insertions, counts.character_errors):
        assert (column >= 0).all()


@given(st.lists(MAYBE, min_size=1, max_size=8))
def test_words_become_characters(texts: list[str]) -> None:
    coded, words = encode(texts)
    assert words.tolist() == [len(text.split()) for text in texts] == [len(one) for one in coded]
    letter = {word: one[n] for text, one in zip(texts, coded, strict=True) for n, word in enumerate(text.split())}
    assert len(set(letter.values())) == len(letter)
    assert ["".join(letter[word] for word in text.split()) for text in texts] == coded


@given(TEXT, TEXT)
def test_an_alignment_contains_every_word_of_both_sides_once(reference: str, hypothesis: str) -> None:
    steps = align(reference.split(), hypothesis.split())
    assert [word for step in steps for word in step.reference] == reference.split()
    assert [word for step in steps for word in step.hypothesis] == hypothesis.split()
    assert all((step.kind == "equal") == (step.reference == step.hypothesis) for step in steps)
    errors = sum(max(len(step.reference), len(step.hypothesis)) for step in steps if step.kind != "equal")
    assert errors == count([reference], [hypothesis]).errors[0]


def test_texts_with_70000_distinct_words_are_counted() -> None:
    text = " ".join(f"w{n}" for n in range(70_000))  # past the surrogates
    found = count([text, "a"], [f"{text} more", "b"])
    assert found.insertions.tolist() == [1, 0]
    assert np.array_equal(found.substitutions, [0, 1])


def test_similar_words_are_aligned_with_each_other() -> None:
    steps = align("אני רוצה ללכת הביתה".split(), "אני רוצא הביתא".split())
    assert [(step.kind, step.reference, step.hypothesis) for step in steps] == [
        ("equal", ("אני",), ("אני",)), ("replace", ("רוצה",), ("רוצא",)), ("delete", ("ללכת",), ()),
        ("replace", ("הביתה",), ("הביתא",)),
    ]  # fmt: skip


@given(st.lists(WORDS, max_size=9), st.lists(WORDS, max_size=9))
def test_alignment_by_similarity_keeps_the_count_of_edits_and_every_word(
    reference: list[str], hypothesis: list[str]
) -> None:
    steps, plain = align(reference, hypothesis), path(reference, hypothesis)

    def edits(of: list[EditSpan]) -> int:
        return sum(max(len(step.reference), len(step.hypothesis)) for step in of if step.kind != "equal")

    def hits(of: list[EditSpan]) -> int:
        return sum(len(step.reference) for step in of if step.kind == "equal")

    assert edits(steps) == edits(plain)
    assert hits(steps) >= hits(plain)
    assert all(step.reference == step.hypothesis for step in steps if step.kind == "equal")
    assert [word for step in steps for word in step.reference] == reference
    assert [word for step in steps for word in step.hypothesis] == hypothesis


def test_a_shared_word_is_correct_if_this_needs_no_more_edits() -> None:
    steps = align("שלום רב לכולם".split(), "אז לכולם שם".split())
    assert ("equal", ("לכולם",), ("לכולם",)) in [(step.kind, step.reference, step.hypothesis) for step in steps]
