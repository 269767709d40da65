"""Hebrew data sets on the Hugging Face hub, by short name: their column names, and whether they are gated.

Columns are tried in the given order, because data sets are renamed and revised; a dotted name reads a field of a
column of JSON or a struct. The schemas are those of the Hub on 2026-11-20; `tests/corpus/sources/test_sources.py` has
one file of each.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DataSet:
    """text, key, group, previous, quality: names of columns, the first that exists is used. gated: needs HF_TOKEN.

    key: the permanent id of a row; without one, the hash of its audio is the id. elsewhere: where to get it, because
    the repository is empty now. language: that is spoken.
    """

    id: str
    split: str
    text: tuple[str, ...]
    licence: str
    config: str | None = None
    key: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()
    quality: tuple[str, ...] = ()
    gated: bool = False
    elsewhere: str = ""
    language: str = "Hebrew"


_IVRIT = "ivrit.ai"


def _slices(name: str) -> DataSet:
    """A data set in the layout of ivrit.ai's Whisper training: slices of up to 30 s, marks, previous text."""
    return DataSet(
        f"ivrit-ai/{name}",
        "train",
        ("transcript",),
        _IVRIT,
        group=("metadata.entry_id", "metadata.source"),
        previous=("prev_transcript",),
        quality=("metadata.quality_score",),
        gated=True,
    )


CATALOGUE: dict[str, DataSet] = {
    "crowd-transcribe-v5": DataSet(
        "ivrit-ai/crowd-transcribe-v5",
        "train",
        ("sentence", "text"),
        _IVRIT,
        key=("uuid",),
        group=("extra_data.source_id", "extra_data.speaker_id", "speaker_id", "source_id"),
        quality=("extra_data.quality_score", "quality_score"),
        gated=True,
    ),
    **{name: _slices(name) for name in ("crowd-recital-whisper-training", "knesset-plenums-whisper-training")},
    "fleurs-he": DataSet("google/fleurs", "test", ("transcription",), "CC-BY-4.0", config="he_il", group=("id",)),
    "common-voice-he": DataSet(
        "mozilla-foundation/common_voice_17_0",
        "test",
        ("sentence",),
        "CC0-1.0",
        config="he",
        group=("client_id",),
        elsewhere="download Hebrew from https://commonvoice.mozilla.org/datasets, unpack it, and name its folder (the "
        "one with test.tsv and clips/) as files, or as common-voice-he@FOLDER",
    ),
    "kan": DataSet("imvladikon/hebrew_speech_kan", "validation", ("sentence",), "see the data set's page"),
    "saspeech": DataSet("upai-inc/saspeech", "test", ("text",), "see the data set's page", gated=True),
    "eval-d1": DataSet("ivrit-ai/eval-d1", "test", ("text",), _IVRIT, gated=True),
    "eval-whatsapp": DataSet("ivrit-ai/eval-whatsapp", "test", ("text",), _IVRIT, gated=True),
}
