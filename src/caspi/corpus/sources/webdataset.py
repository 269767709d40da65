"""WebDataset: tar files in which the files of a sample follow each other and share a name (github.com/webdataset)."""

from __future__ import annotations

import functools
import json
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from caspi.config import Cited
from caspi.corpus.sources.base import Source, checked, listing, split_marks
from caspi.corpus.sources.folder import AUDIO_ENDINGS
from caspi.corpus.sources.rows import Columns, meanings
from caspi.corpus.utterance import BytesAudio, Recording
from caspi.errors import UsageError
from caspi.language import named

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
_TEXT, _FIELDS = ".txt", ".json"


class WebDatasetSource(Source):
    """Tar files of WebDataset. A sample has an audio file, and its text in a .txt file or in a field of a .json file,
    which may also name speaker and language.
    """

    kind: Annotated[Literal["webdataset"], Cited("github.com/webdataset/webdataset")]
    """Selects this kind of source."""
    path: Path
    """A tar file, or a folder of them."""
    name: str = ""
    """The name of the source in the corpus. Without it, the name of the folder or file."""
    columns: Columns = Columns()
    """The fields of the .json file that do not have the usual names: `columns: {text: spoken}`."""

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        name = self._named()
        for number, (sample, files) in enumerate(self._samples()):
            if number >= skip:
                read = functools.partial(self._recording, sample, files, name, language)
                yield checked(read, f"{name}/{sample}", name, language)

    def default_name(self) -> tuple[str, Path] | None:
        return None if self.name else (self._named(), self.path.resolve())

    def identity(self) -> str:
        files = self._files()
        return listing(files, files[0].parent)

    def _named(self) -> str:
        return self.name or self.path.resolve().name.partition(".")[0]

    def _files(self) -> list[Path]:
        found = [self.path] if self.path.is_file() else tar_files(self.path)
        if not found:
            raise UsageError(f"{self.path} has no tar files; check sources.path in the recipe")
        return found

    def _samples(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """The name of every sample, and its files by ending. Raises UsageError for a damaged tar file."""
        for path in self._files():
            sample, files = "", dict[str, bytes]()
            try:
                with tarfile.open(path) as tar:
                    for member in tar:
                        if not member.isfile():
                            continue
                        stem, ending = _split_name(member.name)
                        if files and stem != sample:
                            yield f"{path.name}/{sample}", files
                            files = {}
                        content = tar.extractfile(member)
                        sample, files[ending] = stem, content.read() if content else b""
            except (tarfile.TarError, OSError, EOFError) as error:
                raise UsageError(f"{path} cannot be read after {sample or 'its start'}: {error}") from error
            if files:
                yield f"{path.name}/{sample}", files

    def _recording(self, sample: str, files: dict[str, bytes], name: str, language: str) -> Recording:
        audio = next((content for ending, content in files.items() if ending in AUDIO_ENDINGS), None)
        row = json.loads(files[_FIELDS]) if _FIELDS in files else {}
        if not isinstance(row, dict):
            raise TypeError("its .json file holds no fields")
        meant = meanings(frozenset(row), self.columns)

        def value(meaning: str) -> str:
            return str(next((row[key] for key in meant[meaning] if row.get(key) not in (None, "")), ""))

        if audio is None:
            raise ValueError(f"no audio file among {', '.join(sorted(files))}")
        text = files[_TEXT].decode("utf-8-sig") if _TEXT in files else value("text")
        identifier = f"{name}/{value('id') or sample}"
        spoken = value("language")
        return Recording(
            id=identifier,
            audio=BytesAudio(audio),
            source=name,
            group=f"{name}/{value('speaker') or sample}",
            language=named(spoken) if spoken else language,
            text=text,
            segments=split_marks(text),
            context=value("context"),
            previous=value("previous"),
            split=self.split,
        )


def tar_files(folder: Path) -> list[Path]:
    """The tar files of a folder, at any depth, in order."""
    return sorted(path for path in folder.rglob("*") if path.name.endswith(TAR_ENDINGS) and path.is_file())


def _split_name(member: str) -> tuple[str, str]:
    """`a/b.one.wav` is the file `.one.wav` of the sample `a/b` for WebDataset; its last ending tells what it is."""
    folder, name = posixpath.split(member)
    stem, _, rest = name.partition(".")
    return posixpath.join(folder, stem), "." + rest.rpartition(".")[2].lower()
