"""Where somebody speaks: silero-vad through onnxruntime, or the level of the sound where these are not installed."""

from __future__ import annotations

import functools
import importlib.util
import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from caspi.audio import SAMPLE_RATE, Seconds

_log = logging.getLogger(__name__)

FRAME = 512  # samples
FRAME_SECONDS: Seconds = FRAME / SAMPLE_RATE  # 32 ms


class SpeechDetector(Protocol):
    """Listens to one recording from its start."""

    name: str

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """Of speech in each of the next frames: float32 [n, 512] at 16 kHz to [n], each 0 to 1."""

    def known(self) -> bool:
        """Whether the probabilities are a model's, not only decisions."""


class Silero:
    """silero-vad (github.com/snakers4/silero-vad, MIT): a recurrent network over frames of 32 ms."""

    name = "silero-vad"
    _CONTEXT = 64  # samples of the frame before that each frame is given
    _AT_ONCE = 512  # frames in one call: memory, and how often threads change

    def __init__(self) -> None:
        self._session = _silero_session()
        self._hidden = np.zeros((1, 1, 128), np.float32)
        self._cell = self._hidden
        self._context = np.zeros((1, self._CONTEXT), np.float32)

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        found = [np.zeros(0, np.float32)]
        for first in range(0, len(frames), self._AT_ONCE):
            some = frames[first : first + self._AT_ONCE]
            contexts = np.concatenate([self._context, some[:-1, -self._CONTEXT :]])
            self._context = some[-1:, -self._CONTEXT :].copy()
            values, self._hidden, self._cell = self._session.run(
                ["speech_probs", "hn", "cn"],
                {"input": np.concatenate([contexts, some], axis=1), "h": self._hidden, "c": self._cell},
            )
            found.append(values.reshape(-1))
        return np.concatenate(found)

    def known(self) -> bool:
        return True


class Loudness:
    """Frames clearly louder than the quiet ones of the last half minute: takes music and other sounds for speech."""

    name = "loudness"
    _MEMORY = 1_024  # frames, 33 s
    _QUIET_SHARE = 0.1  # of the frames that are taken for the noise of the room
    _ABOVE = 9.0  # dB
    _LOWEST = -60.0  # dB of full scale

    def __init__(self) -> None:
        self._levels = np.zeros(0, np.float32)

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        if not len(frames):
            return np.zeros(0, np.float32)
        levels = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-12)
        self._levels = np.concatenate([self._levels, levels])[-self._MEMORY - len(frames) :]
        floor = max(float(np.quantile(self._levels, self._QUIET_SHARE)), self._LOWEST - self._ABOVE)
        return (levels > floor + self._ABOVE).astype(np.float32)

    def known(self) -> bool:
        return False


class Everything:
    """No detection: all of a recording counts as speech."""

    name = "none"

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        return np.ones(len(frames), np.float32)

    def known(self) -> bool:
        return False


def speech_detector(detect: bool = True) -> type[Silero | Loudness | Everything]:
    """The best one that this machine has."""
    if not detect:
        return Everything
    missing = [name for name in ("onnxruntime", "silero_vad") if importlib.util.find_spec(name) is None]
    if missing:
        _log.info(
            "speech is told from silence by its level, and music is taken for speech: for silero-vad, pip install "
            "'caspi-asr[vad]'"
        )
        return Loudness
    return Silero


@functools.cache
def _silero_session() -> Any:
    """One for all threads. silero_vad itself is not imported: only its file is needed."""
    import onnxruntime

    package = importlib.util.find_spec("silero_vad")
    assert package is not None  # speech_detector has looked
    assert package.origin is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # recordings are read by several threads
    model = Path(package.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
