"""Sources of recordings. To add a kind of source, add a file here and an entry in `SourceConfig`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from caspi.corpus.sources.base import Source
from caspi.corpus.sources.corpus import CorpusSource
from caspi.corpus.sources.folder import FolderSource
from caspi.corpus.sources.huggingface import HuggingFaceSource
from caspi.corpus.sources.kaldi import KaldiSource
from caspi.corpus.sources.lhotse import LhotseSource
from caspi.corpus.sources.manifest import ManifestSource
from caspi.corpus.sources.synthetic import SyntheticSource
from caspi.corpus.sources.table import TableSource
from caspi.corpus.sources.webdataset import WebDatasetSource

SourceConfig = Annotated[
    ManifestSource
    | TableSource
    | HuggingFaceSource
    | SyntheticSource
    | FolderSource
    | KaldiSource
    | LhotseSource
    | WebDatasetSource
    | CorpusSource,
    Field(discriminator="kind"),
]

__all__ = ["Source", "SourceConfig"]
