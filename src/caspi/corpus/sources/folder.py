"""A folder of audio files, each with its text beside it: `talk/one.mp3` and `talk/one.txt`, or with its times, too:
`one.srt`, `one.vtt`, `one.TextGrid`, `one.eaf`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from caspi.corpus.sources.annotations import ENDINGS, segments_of
from caspi.corpus.sources.base import Source, checked, listing
from caspi.corpus.utterance import FileAudio, Recording
from caspi.errors import UsageError

_TEXT = ".txt"
AUDIO_ENDINGS = frozenset(
    ".mp3 .wav .flac .ogg .oga .opus .m4a .mp4 .aac .webm .wma .amr .aiff .aif .mka .mkv .mov".split()
)


class FolderSource(Source):
    """A folder of audio files, at any depth, each with its text in a file beside it: the whole text (.txt), or what is
    said when (subtitles .srt and .vtt, .TextGrid of Praat, .eaf of ELAN; extra `annotations`).

    Files of a subfolder are one group; each file at the top is its own group. An audio file without a text is rejected
    as `missing_text`.
    """

    kind: Literal["folder"]
    """Selects this kind of source."""
    path: Path
    """The folder."""
    name: str = ""
    """The name of the source in the corpus. Without it, the name of the folder."""
    tier: str = ""
    """The tier of TextGrid and ELAN files. Without it, the one with the longest texts."""

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        name = self.name or self.path.resolve().name
        for path in self._files()[skip:]:
            relative = path.relative_to(self.path)
            read = functools.partial(self._recording, path, relative, name, language)
            yield checked(read, f"{name}/{relative}", name, language)

    def _recording(self, path: Path, relative: Path, name: str, language: str) -> Recording:
        text = text_beside(path)
        timed = text is not None and text.suffix.lower() != _TEXT
        group = relative.parent if relative.parent != Path() else relative
        return Recording(
            id=f"{name}/{relative}",
            audio=FileAudio(path.resolve()),
            source=name,
            group=f"{name}/{group}",
            language=language,
            text="" if text is None or timed else _read(text),
            segments=segments_of(text, self.tier) if text and timed else (),
            split=self.split,
            problem="" if text else f"no text file beside it: {path.with_suffix(_TEXT).name} is missing",
            problem_is="bad_row" if text else "missing_text",
        )

    def default_name(self) -> tuple[str, Path] | None:
        home = self.path.resolve()
        return None if self.name else (home.name, home)

    def identity(self) -> str:
        texts = [text_beside(path) for path in self._files()]
        return listing([*self._files(), *(text for text in texts if text)], self.path)

    def count(self) -> int | None:
        return len(self._files())

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            raise UsageError(f"folder {self.path} does not exist; check sources.path in the recipe")
        return audio_files(self.path)


def audio_files(folder: Path) -> list[Path]:
    """The audio files of a folder, at any depth, in order; no links to files outside of it."""
    home = folder.resolve()
    found = (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_ENDINGS and not path.name.startswith("._") and path.is_file()  # ._: macOS
    )
    return sorted(path for path in found if path.resolve().is_relative_to(home))


def text_beside(path: Path) -> Path | None:
    """`one.txt` for `one.mp3`, `ONE.TXT` for `ONE.MP3`; a file with times before one without."""
    endings = (cased for ending in (*ENDINGS, _TEXT) for cased in (ending, ending.lower(), ending.upper()))
    return next((text for ending in endings if (text := path.with_suffix(ending)).is_file()), None)


def _read(path: Path) -> str:
    """Raises ValueError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8: is it windows-1255 (iconv -f windows-1255 -t utf-8)?") from error
