"""Where recordings come from. A new kind of source is a file here and an entry in `SourceConfig`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from caspi.corpus.sources.huggingface import HuggingFaceSource
from caspi.corpus.sources.manifest import ManifestSource
from caspi.corpus.sources.synthetic import SyntheticSource
from caspi.corpus.utterance import Recording

SourceConfig = Annotated[ManifestSource | HuggingFaceSource | SyntheticSource, Field(discriminator="kind")]


def recordings(sources: tuple[SourceConfig, ...], language: str) -> Iterator[Recording]:
    """All recordings of all sources, in the order of the recipe."""
    for source in sources:
        yield from source.recordings(language)


__all__ = ["SourceConfig", "recordings"]
