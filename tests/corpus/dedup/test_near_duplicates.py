from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from caspi import audio, commands
from caspi.corpus.dedup import acoustic_fingerprint
from caspi.corpus.dedup.near_duplicates import AudioCopies, EvaluationSets, TextRepeats
from caspi.corpus.pipeline.contamination import ComparedSet, evaluation_sets
from caspi.corpus.signals import FRAME, spectrogram
from caspi.corpus.sources.manifest import ManifestSource
from caspi.errors import UsageError
from tests.support import encoded, utterances, voice, write_manifest

SENTENCES = [
    "buenos dias a todos los presentes",
    "la casa grande esta cerca del rio",
    "no quiero comer nada esta noche",
    "manana iremos juntos al mercado viejo",
]


def words(samples: np.ndarray) -> np.ndarray:
    return acoustic_fingerprint.words(spectrogram(samples))


def phases(samples: np.ndarray) -> list[np.ndarray]:
    return [words(samples), words(samples[FRAME // 2 :])]


def hash_of(samples: np.ndarray) -> bytes:
    return acoustic_fingerprint.exact(audio.pcm16(samples))


DAMAGE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mp3 at 32 kbit/s": lambda x: audio.decode(encoded(x, 16_000, "mp3", "libmp3lame", 32_000)),
    "opus at 16 kbit/s": lambda x: audio.decode(
        encoded(soxr.resample(x, 16_000, 48_000), 48_000, "ogg", "libopus", 16_000)
    ),
    "a quarter as loud": lambda x: x * np.float32(0.25),
    "cut between two frames": lambda x: x[FRAME // 2 :],
    "telephone": lambda x: audio.resample(soxr.resample(x, 16_000, 8_000), 8_000),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_copies_are_detected_by_their_audio(damage: str) -> None:
    copies = AudioCopies()
    clips = [voice(text, n) for n, text in enumerate(SENTENCES)]
    for n, clip in enumerate(clips):
        assert not copies.is_copy(hash_of(clip), phases(clip), f"text {n}")
        copies.add(hash_of(clip), words(clip), f"text {n}")
    for clip in clips:
        changed = DAMAGE[damage](clip)
        assert copies.is_copy(hash_of(changed), phases(changed), "another text")


AAC = {
    "AAC, whose encoder adds 48 ms": lambda x: audio.decode(
        encoded(soxr.resample(x, 16_000, 44_100), 44_100, "adts", "aac", 64_000)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", [*DAMAGE, *AAC])
def test_copies_of_real_recordings_are_detected(damage: str, real_speech_folder: Path) -> None:
    rows = [json.loads(line) for line in (real_speech_folder / "torah/manifest.jsonl").open(encoding="utf-8")][:2]
    clips = []
    for row in rows:
        samples = audio.decode(real_speech_folder / "torah" / row["audio"])
        for segment in row["segments"]:
            clips.append(samples[int(segment["start"] * 16_000) : int(segment["end"] * 16_000)])
    clips = [clip for clip in clips if 2 <= len(clip) / 16_000 <= 15]
    copies = AudioCopies()
    for n, clip in enumerate(clips):
        assert not copies.is_copy(hash_of(clip), phases(clip), f"text {n}")
        copies.add(hash_of(clip), words(clip), f"text {n}")
    changed = [({**DAMAGE, **AAC})[damage](clip) for clip in clips]
    assert len(clips) > 20
    assert all(copies.is_copy(hash_of(clip), phases(clip), "another text") for clip in changed)


def test_the_same_sentence_in_another_voice_is_not_a_copy() -> None:
    copies = AudioCopies()
    for number in range(12):
        clip = voice(SENTENCES[0], number * 5)
        assert not copies.is_copy(hash_of(clip), phases(clip), SENTENCES[0])
        copies.add(hash_of(clip), words(clip), SENTENCES[0])


def test_shared_digital_silence_is_not_a_copy() -> None:
    copies = AudioCopies()
    for number, text in enumerate(SENTENCES):
        padded = np.concatenate(
            [np.zeros(64_000, np.float32), voice(text, number)[:16_000], np.zeros(64_000, np.float32)]
        )
        assert not copies.is_copy(hash_of(padded), phases(padded), "the same text")
        copies.add(hash_of(padded), words(padded), "the same text")


@pytest.mark.parametrize("shift", [0, 100, FRAME // 2, 777])
def test_a_clip_cut_out_of_an_evaluation_recording_leaks(shift: int) -> None:
    """Evaluation recordings are minutes long; a leak is a piece of one, cut anywhere and encoded again."""
    recording = np.concatenate([voice(text, n) for n, text in enumerate(SENTENCES)])
    sets = EvaluationSets()
    sets.add(hash_of(recording), [words(recording[phase:]) for phase in (0, FRAME // 2)], "")
    piece = audio.decode(encoded(recording[30_000 + shift : 90_000 + shift], 16_000, "mp3", "libmp3lame", 32_000))
    assert sets.leaks(hash_of(piece), words(piece), "")
    other = voice("esto no lo ha dicho nadie todavia", 50)
    assert not sets.leaks(hash_of(other), words(other), "")


def test_evaluation_sets_are_matched_between_frames(tmp_path: Path) -> None:
    recording = np.concatenate([voice(text, n) for n, text in enumerate(SENTENCES)])
    path = write_manifest(tmp_path / "test", [(recording, "שלום")], "test")
    sets, digest, held = evaluation_sets([ManifestSource(kind="manifest", path=path)], "Hebrew", tmp_path / "work")
    again, same, _ = evaluation_sets([ManifestSource(kind="manifest", path=path)], "Hebrew", tmp_path / "work")
    assert digest == same
    assert held == [ComparedSet(str(path), recordings=1, unreadable=0)]
    piece = recording[30_000 // FRAME * FRAME + FRAME // 2 :][:60_000]
    noise = np.random.default_rng(0).standard_normal(len(piece)).astype(np.float32)
    noisy = piece + np.float32(0.1 * piece.std()) * noise
    assert sets.leaks(hash_of(noisy), words(noisy), "")
    assert again.leaks(hash_of(noisy), words(noisy), "")


def test_text_of_an_evaluation_set_leaks() -> None:
    sets = EvaluationSets()
    long = "אחת שתיים שלוש ארבע חמש שש שבע שמונה תשע עשר אחת עשרה שתים עשרה"
    sets.add(b"", [], long)
    sets.add(b"", [], "משפט אחד קצר מאוד")
    nothing = np.zeros(0, np.uint16)
    assert sets.leaks(b"x", nothing, "משפט אחד קצר מאוד")
    assert sets.leaks(b"x", nothing, "שלוש ארבע חמש שש שבע שמונה תשע עשר")
    assert sets.leaks(b"x", nothing, "שלוש ארבע חמש שש שבע")
    assert sets.leaks(b"x", nothing, long.replace("שבע", "שבעה"))  # one word of twelve differs
    assert not sets.leaks(b"x", nothing, "שלוש ארבע חמש")
    assert not sets.leaks(b"x", nothing, "משפט אחר לגמרי מאוד")
    assert not sets.leaks(b"x", nothing, "אחת שתיים שלוש ארבע ועוד כמה מילים אחרות שאין שם בכלל")


@given(st.lists(st.sampled_from(["שלום לכולם", "מה שלומכם היום חברים", "כן", "תודה רבה לכם"]), max_size=30))
def test_equal_texts_are_counted(texts: list[str]) -> None:
    repeats = TextRepeats()
    for number, text in enumerate(texts):
        assert repeats.before(text) == texts[:number].count(text)
        repeats.add(text)


def test_nearly_equal_texts_are_counted_together() -> None:
    repeats = TextRepeats()
    repeats.add("כתוביות על ידי קהילת המתרגמים של אתר כלשהו")
    assert repeats.before("כתוביות על ידי קהילת המתרגמים של אתר כלשהי") == 1
    assert repeats.before("ישיבת הכנסת נפתחה בשעה עשר בבוקר") == 0


def test_copies_leaks_and_repeats_are_rejected_with_their_reasons(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    texts = ["הילד הלך לבית הספר", "מחר ירד גשם בצפון", "אני אוהב לקרוא ספרים", "הרכבת תצא בשעה שבע"]
    first = [(voice(spoken, n), text) for n, (spoken, text) in enumerate(zip(SENTENCES, texts, strict=True))]
    copy = audio.decode(encoded(first[1][0], 16_000, "mp3", "libmp3lame", 48_000))
    template = [(voice(f"{text} si", 7 + n), "תמלול אוטומטי של התוכנית") for n, text in enumerate(SENTENCES)]
    second = [(copy, "טקסט אחר לגמרי"), (voice("tambien en la prueba", 40), "גם במבחן"), *template]
    one = write_manifest(tmp_path / "one", first, "one")
    two = write_manifest(tmp_path / "two", second, "two")
    test = write_manifest(tmp_path / "test", [(second[1][0] * np.float32(0.5), "מבחן")], "test")
    made = recipe_of(
        [{"kind": "manifest", "path": one}, {"kind": "manifest", "path": two}],
        evaluation=[{"kind": "manifest", "path": test}],
        filters={"max_repeats": 2},
    )
    summary = commands.prepare.run(made).summary
    assert summary["rejected"] == {"duplicate_audio": 1, "leak": 1, "repeated_text": 2}
    assert summary["rejected_examples"]["leak"][0]["id"] == "two-1"
    assert summary["rejected_examples"]["duplicate_audio"][0]["id"] == "two-0"
    kept = utterances(tmp_path / "corpus")
    assert kept["two-3"].repeat == 1


def test_copies_half_a_frame_later_are_the_known_limit() -> None:
    """A copy cut half a frame (16 ms) later has the largest possible distance from its original."""
    clip = voice(" ".join(SENTENCES), 3)
    share, _ = acoustic_fingerprint.difference(words(clip), words(clip[FRAME // 2 :]), 0)
    assert share < 0.4


def test_only_the_segments_of_an_evaluation_set_are_leaks(tmp_path: Path) -> None:
    """A benchmark may be a minute of an hour: the rest is training data."""
    recording = np.concatenate([voice(text, n) for n, text in enumerate(SENTENCES)])
    path = write_manifest(tmp_path / "test", [(recording, "שלום")], "test", start=0.0, end=3.0)
    sets, _, _ = evaluation_sets([ManifestSource(kind="manifest", path=path)], "Hebrew", tmp_path / "work")
    inside, outside = recording[5_000:45_000], recording[60_000:100_000]
    assert sets.leaks(hash_of(inside), words(inside), "")
    assert not sets.leaks(hash_of(outside), words(outside), "")


def test_an_evaluation_set_without_audio_is_an_error(tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "test", [(voice(SENTENCES[0]), "שלום")], "test")
    (tmp_path / "test" / "test-0.flac").unlink()
    with pytest.raises(UsageError, match="has no readable audio"):
        evaluation_sets([ManifestSource(kind="manifest", path=path)], "Hebrew", tmp_path / "work")


def test_a_leaked_text_is_not_used_as_previous_text(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    first, second = voice(SENTENCES[0], 1), voice(SENTENCES[1], 2)
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "talk.wav", np.concatenate([first, second]), 16_000)
    cut = len(first) / 16_000
    segments = [
        {"start": 0, "end": cut, "text": "זה עומד במבחן"},
        {"start": cut, "end": cut + len(second) / 16_000, "text": "וזה לא"},
    ]
    path = folder / "m.jsonl"
    path.write_text(json.dumps({"audio": "talk.wav", "segments": segments}, ensure_ascii=False))
    test = write_manifest(tmp_path / "test", [(first, "מבחן אחר")], "test")
    made = recipe_of([{"kind": "manifest", "path": path}], evaluation=[{"kind": "manifest", "path": test}])
    assert commands.prepare.run(made).summary["rejected"] == {"leak": 1}
    [kept] = utterances(tmp_path / "corpus").values()
    assert (kept.text, kept.previous) == ("וזה לא", "")
