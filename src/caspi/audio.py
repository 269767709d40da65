"""Bytes to mono float32 at 16 kHz, or a named reason why not."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from caspi.errors import CaspiError

Seconds = float

SAMPLE_RATE = 16_000  # Hz: the only rate the model knows

_BLOCK = 1 << 16  # samples at a time: few calls, and still in the cache
_FRAMES_PER_LOOK = 16  # one compressed frame in so many is looked at channel by channel
_SLOWEST, _FASTEST = 1_000, 768_000  # Hz: outside, a header lies
_OGG_PAGE = 27 + 255 + 255 * 255  # bytes, at most (RFC 3533, section 6)
# What FFmpeg may take bytes for: files of sound, none that names other files or addresses (concat, HLS, SDP ...).
_CONTAINERS = (
    "mov,mp4,m4a,matroska,webm,ogg,mp3,aac,ac3,eac3,flac,wav,w64,rf64,aiff,au,caf,amr,amrnb,amrwb,asf,avi,mpeg,mpegts,"
    "wv,ape,tta,gsm,voc,ircam,nist,dts,mpc,mpc8,oma,sox,flv,3gp,ea,mlp,truehd,adx,aptx,sbc"
)
_GAP = 0.1  # seconds missing between two frames from which on it is a gap, not rounding
_LONGEST_GAP = 3600.0  # seconds: a stamp further ahead is a damaged one
_ABSURD_FRAMES = 1 << 40  # what a damaged header, or a stream of unknown length, claims


class AudioError(CaspiError):
    """`reason` is one of a few fixed words, so that rejections can be counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self._detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        return AudioError, (self.reason, self._detail)


@dataclass(frozen=True, slots=True)
class Stream:
    """Audio being decoded: float32 blocks [n], mono at 16 kHz, whatever was in the file.

    sample_rate, channels: of the file. declared: seconds its header claims, None where it claims none (an estimate
    for an mp3 without one). dead_channel: asked for once the blocks are read; whether one channel held nothing.
    """

    sample_rate: int
    channels: int
    declared: Seconds | None
    blocks: Iterator[np.ndarray]
    dead_channel: Callable[[], bool] = lambda: False


def decode(source: bytes | Path) -> np.ndarray:
    """Any container and codec, to float32 [n] mono at 16 kHz.

    Raises AudioError with the reason `missing_audio`, `corrupt_audio`, `no_audio_stream`, `empty_audio`,
    `non_finite_audio` or `out_of_phase`.
    """
    blocks = list(open_stream(source).blocks)
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]


def open_stream(source: bytes | Path, channel: int | None = None) -> Stream:
    """Opens a file, or the bytes of one. Raises AudioError as `decode` does, here or while the blocks are read.

    channel: only this one, from 0; by default their mean. What a file's time stamps leave out is silence in the
    stream, so that times stay true. mp3, WAV and FLAC go through libsndfile, which is two to three times as fast at
    them; the rest through FFmpeg.
    """
    name = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
    try:
        if _size(source) == 0:
            raise AudioError("empty_audio", f"0 bytes: {name}")
        stream = _open_sndfile(source, name, channel) or _open_ffmpeg(source, name, channel)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AudioError("corrupt_audio", f"{name}: {error}") from error
    if channel is not None and channel >= stream.channels:
        raise AudioError("corrupt_audio", f"{name}: channel {channel} was asked for, it has {stream.channels}")
    return replace(stream, blocks=_checked(stream, name))


def _checked(stream: Stream, name: str) -> Iterator[np.ndarray]:
    """Blocks that are not empty and hold numbers; decoder errors under their name."""
    count = 0
    try:
        for block in stream.blocks:
            if block.size:
                if not np.isfinite(block.sum()) and not np.isfinite(block).all():
                    raise AudioError("non_finite_audio", name)
                count += block.size
                yield block
    except (av.FFmpegError, soundfile.LibsndfileError, OSError, ValueError) as error:
        raise AudioError("corrupt_audio", f"{name}: {error}") from error
    if count == 0:
        raise AudioError("empty_audio", name)


def _open_sndfile(source: bytes | Path, name: str, channel: int | None) -> Stream | None:
    """None where the file is of another kind or libsndfile cannot open it."""
    if not _is_for_sndfile(source):
        return None
    try:
        file = soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source))
    except (soundfile.LibsndfileError, RuntimeError):
        return None
    if file.samplerate < _SLOWEST or file.samplerate > _FASTEST:
        raise AudioError("corrupt_audio", f"{name}: a sample rate of {file.samplerate} Hz")
    channels = _Channels(name)
    declared = file.frames / file.samplerate if 0 < file.frames < _ABSURD_FRAMES else None
    return Stream(
        sample_rate=file.samplerate,
        channels=file.channels,
        declared=declared and declared * _missing_from_wav(source),
        blocks=_sndfile_blocks(file, channels, channel),
        dead_channel=channels.one_is_dead,
    )


def _missing_from_wav(source: bytes | Path) -> float:
    """How many times as long a WAV file says it is; libsndfile believes the file's size instead. 1 for others."""
    head = _head(source)
    size = _size(source)
    says = int.from_bytes(head[4:8], "little") + 8
    is_stream = says >= 0x7FFFFFFF  # of unknown length, as pipes write it
    return max(1.0, says / size) if head[:4] == b"RIFF" and not is_stream else 1.0


def _size(source: bytes | Path) -> int:
    """Bytes. Raises AudioError where there is no such file."""
    if isinstance(source, bytes):
        return len(source)
    try:
        if source.is_dir():
            raise AudioError("missing_audio", f"a folder: {source}")
        return source.stat().st_size
    except (OSError, ValueError) as error:  # no such file, a name no file system takes, no right to look
        raise AudioError("missing_audio", f"{getattr(error, 'strerror', None) or error}: {source}") from error


def _head(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source[:12]
    with source.open("rb") as file:
        return file.read(12)


def _is_for_sndfile(source: bytes | Path) -> bool:
    head = _head(source)
    is_mp3 = head[:3] == b"ID3" or (len(head) > 2 and head[0] == 0xFF and head[1] in (0xFB, 0xF3, 0xF2, 0xFA))
    return is_mp3 or head[:4] == b"fLaC" or (head[:4] == b"RIFF" and head[8:12] == b"WAVE")


def _sndfile_blocks(file: soundfile.SoundFile, channels: _Channels, channel: int | None) -> Iterator[np.ndarray]:
    stream = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")
    buffer = np.empty((_BLOCK, file.channels), np.float32)
    with file:
        while True:
            block = file.read(out=buffer)
            last = len(block) < _BLOCK
            if channel is None:
                mono = _mono(block)
                channels.hear(block, mono)
            else:
                mono = np.ascontiguousarray(block[:, channel])
            yield mono.copy() if file.samplerate == SAMPLE_RATE else stream.resample_chunk(mono, last=last)
            if last:
                break
    channels.check()


def _mono(block: np.ndarray) -> np.ndarray:
    """[n, channels] to their mean [n]. Adding columns is several times as fast as `mean(axis=1)`."""
    mono = block[:, 0]
    if block.shape[1] > 1:
        mono = block[:, 0] + block[:, 1]
        for channel in range(2, block.shape[1]):
            mono += block[:, channel]
        mono *= 1 / block.shape[1]
    return mono


def _open_ffmpeg(source: bytes | Path, name: str, channel: int | None) -> Stream:
    container = av.open(
        io.BytesIO(source) if isinstance(source, bytes) else str(source),
        options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"},
    )
    if not container.streams.audio:
        container.close()
        raise AudioError("no_audio_stream", name)
    stream = container.streams.audio[0]
    channels = _Channels(name)
    declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    return Stream(
        sample_rate=stream.codec_context.sample_rate or 0,
        channels=stream.codec_context.channels or 0,
        declared=_if_cut_off(source, declared),
        blocks=_ffmpeg_blocks(container, channels, channel),
        dead_channel=channels.one_is_dead,
    )


def _if_cut_off(source: bytes | Path, declared: Seconds | None) -> Seconds | None:
    """An Ogg file that ends inside a page was longer, nobody knows by how much; else what it declares."""
    if _head(source)[:4] != b"OggS":
        return declared
    if isinstance(source, bytes):
        tail = source[-_OGG_PAGE:]
    else:
        with source.open("rb") as file:
            file.seek(max(0, _size(source) - _OGG_PAGE))
            tail = file.read()
    at = tail.rfind(b"OggS")
    header = tail[at : at + 27]
    if at < 0 or len(header) < 27:
        return float("inf")
    sizes = tail[at + 27 : at + 27 + header[26]]
    is_whole = len(sizes) == header[26] and len(tail) - at >= 27 + header[26] + sum(sizes)
    return declared if is_whole else float("inf")


def _ffmpeg_blocks(
    container: av.container.InputContainer, channels: _Channels, channel: int | None
) -> Iterator[np.ndarray]:
    layout = "mono" if channel is None else None
    resampler = av.AudioResampler(
        format="flt" if channel is None else "fltp", layout=layout, rate=SAMPLE_RATE, frame_size=_BLOCK
    )
    expected: float | None = None  # when the next frame starts, if nothing is missing
    with container:
        for number, frame in enumerate(container.decode(container.streams.audio[0])):
            missing = 0.0
            if expected is not None and frame.time is not None:
                missing = frame.time - expected
            if number == 0:
                expected = frame.time
            if expected is not None:
                expected += frame.samples / frame.sample_rate
            for silence in _silence(frame, missing) if _GAP < missing < _LONGEST_GAP else ():
                yield from _resampled(resampler, silence, channel)
                expected = (expected or 0.0) + silence.samples / silence.sample_rate
            frame.pts = None  # timestamps of damaged files are not monotonic; order is enough
            if channel is None and number % _FRAMES_PER_LOOK == 0 and _has_planes(frame):
                planes = frame.to_ndarray().astype(np.float32)
                channels.hear(planes.T, planes.mean(axis=0))
            yield from _resampled(resampler, frame, channel)
        yield from _resampled(resampler, None, channel)
    channels.check()


def _has_planes(frame: av.AudioFrame) -> bool:
    return bool(frame.format.is_planar and frame.layout.nb_channels > 1)


def _resampled(resampler: av.AudioResampler, frame: av.AudioFrame | None, channel: int | None) -> Iterator[np.ndarray]:
    for block in resampler.resample(frame):
        yield block.to_ndarray()[channel or 0]


def _silence(like: av.AudioFrame, seconds: Seconds) -> Iterator[av.AudioFrame]:
    """Frames of silence in the format of another frame."""
    left = round(seconds * like.sample_rate)
    while left > 0:
        frame = av.AudioFrame(like.format.name, like.layout.name, min(left, _BLOCK))
        frame.sample_rate = like.sample_rate
        for plane in frame.planes:
            plane.update(bytes([128 if like.format.name.startswith("u8") else 0]) * plane.buffer_size)
        left -= frame.samples
        yield frame


class _Channels:
    """Loudness of every channel and of their mean, from one sample in 128."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._energy: np.ndarray | None = None
        self._mean_energy = 0.0

    def hear(self, block: np.ndarray, mono: np.ndarray) -> None:
        """block [n, channels] and its mean [n]."""
        if block.shape[1] > 1:
            some, mono = block[::128], mono[::128]
            energy = np.einsum("nc,nc->c", some, some)
            self._energy = energy if self._energy is None else self._energy + energy
            self._mean_energy += float(np.square(mono).sum())

    def one_is_dead(self) -> bool:
        return self._energy is not None and bool(self._energy.min() <= 1e-6 * self._energy.max())

    def check(self) -> None:
        """Raises AudioError where the channels cancel each other."""
        if self._energy is not None and self._mean_energy < 1e-5 * float(self._energy.max()):
            raise AudioError("out_of_phase", f"{self._name}: the channels cancel each other")


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """float32 [n] at `rate` Hz to float32 at 16 kHz."""
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)


def pcm16(samples: np.ndarray) -> np.ndarray:
    """float32 [n] to int16 [n], clipped to [-1, 1); int16 stays as it is."""
    if samples.dtype == np.int16:
        return samples
    return np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)


def encode_flac(samples: np.ndarray) -> bytes:
    """float32 or int16 [n] at 16 kHz to 16-bit FLAC."""
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm16(samples), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes) -> np.ndarray:
    """What `encode_flac` wrote, as float32 [n]."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise AudioError("corrupt_audio", f"expected 16 kHz mono FLAC, found {rate} Hz, {samples.ndim} dimensions")
    return samples
