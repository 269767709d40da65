"""Decodes audio to mono float32 at 16 kHz, or gives a named reason for failure."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import av
import numpy as np
import soundfile
import soxr

from caspi.errors import CaspiError

Seconds = float

SAMPLE_RATE = 16_000  # Hz: the only rate that the model accepts

_BLOCK = 1 << 16  # samples at a time: few calls, but fits the cache
_SLOWEST, _FASTEST = 1_000, 768_000  # Hz: a header with a rate outside this range is wrong
_OGG_PAGE = 27 + 255 + 255 * 255  # bytes, at most (RFC 3533, section 6)
# Formats that FFmpeg may detect: audio files only, no format that refers to other files or URLs (concat, HLS, SDP ...).
_CONTAINERS = (
    "mov,mp4,m4a,matroska,webm,ogg,mp3,aac,ac3,eac3,flac,wav,w64,rf64,aiff,au,caf,amr,amrnb,amrwb,asf,avi,mpeg,mpegts,"
    "wv,ape,tta,gsm,voc,ircam,nist,dts,mpc,mpc8,oma,sox,flv,3gp,ea,mlp,truehd,adx,aptx,sbc"
)
_GAP = 0.1  # seconds missing between two frames from which it is a gap and not rounding
_LONGEST_GAP = 3600.0  # seconds: a time stamp further ahead is damaged
_PROBE = 10.0  # seconds of audio used to decide how to mix the channels
_MOST_CANCELLED = 0.1  # maximum share of the energy in blocks where mixed channels cancel each other
_CANCELS = 0.5  # energy of the mix, relative to the mix of uncorrelated channels
# The frame of an mp3 that has no audio but the length of the rest, by the position of its mark in MPEG 1 and 2.
_FIRST_FRAME = re.compile(rb"\xff[\xe2-\xff].{2}(?:.{9}|.{17}|.{32})(?:Xing|Info)\x00\x00\x00", re.DOTALL)
_LONGEST_CLAIM = 12 * 3600.0  # maximum seconds of memory allocated by a header; unused memory is never touched
_ABSURD_FRAMES = 1 << 40  # length claimed by a damaged header, or by a stream of unknown length


class AudioError(CaspiError):
    """`reason` is one of a few fixed words, so that rejections can be counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self._detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        return AudioError, (self.reason, self._detail)


Note = Literal["ends_early", "more_follows", "gaps", "damaged", "one_channel", "channels_differ", "above_full_scale"]


@dataclass(slots=True)
class Findings:
    """Observations about a file while it is read; complete after the last block.

    seconds: decoded. more_follows: whether there are more bytes than the header describes. gaps: spans that the file's
    time stamps skip, silence in the stream; damaged: whether audio was lost there, because the format has no such gaps.
    only_channel: the only channel used, because the mixed channels cancel each other. dead_channel: whether one channel
    is empty. channels_differ: a different voice on each of two channels.
    """

    seconds: Seconds = 0.0
    more_follows: bool = False
    gaps: list[tuple[Seconds, Seconds]] = field(default_factory=list)
    damaged: bool = False
    only_channel: int | None = None
    dead_channel: bool = False
    channels_differ: bool = False

    def notes(self, declared: Seconds | None) -> list[Note]:
        """The warnings for the user; declared: seconds that the header claims."""
        ends_early = declared is not None and self.seconds < WHOLE * declared - SLACK
        noted: list[tuple[bool, Note]] = [
            (ends_early and not self.more_follows, "ends_early"),
            (self.more_follows, "more_follows"),
            (self.damaged, "damaged"),
            (bool(self.gaps) and not self.damaged, "gaps"),
            (self.only_channel is not None, "one_channel"),
            (self.channels_differ, "channels_differ"),
        ]
        return [note for applies, note in noted if applies]


WHOLE = 0.98  # share of the declared length from which audio is complete: headers round, codecs pad
SLACK = 0.1  # seconds by which a time may exceed the end of the audio

MEANING: dict[Note, str] = {
    "ends_early": "ends before the length in its header: was it cut off in copying?",
    "more_follows": "has more data than its header says, which is ignored: are these several files in one?",
    "gaps": "has gaps in its time stamps: they are filled with silence",
    "damaged": "is damaged inside: lost parts are filled with silence",
    "one_channel": "has channels that cancel each other: only one is used",
    "channels_differ": "has different sounds on its two channels, which are mixed: set channel if the text is of one",
    "above_full_scale": "has samples above full scale: attenuated to avoid clipping",
}


@dataclass(frozen=True, slots=True)
class Stream:
    """Audio being decoded: float32 blocks [n], always mono at 16 kHz.

    sample_rate, channels: of the file. declared: seconds that its header claims, None if it claims no length (an
    estimate for an mp3 without one). findings: filled while the blocks are read.
    """

    sample_rate: int
    channels: int
    declared: Seconds | None
    blocks: Iterator[np.ndarray]
    findings: Findings = field(default_factory=Findings)


def decode(source: bytes | Path) -> np.ndarray:
    """Decodes any container and codec to float32 [n], mono at 16 kHz.

    Raises AudioError with the reason `missing_audio`, `corrupt_audio`, `no_audio_stream`, `empty_audio`,
    `non_finite_audio` or `out_of_phase`.
    """
    return read(source)[0]


def read(source: bytes | Path, channel: int | None = None) -> tuple[np.ndarray, list[Note]]:
    """Like `decode`, of one channel if it is given; also returns warnings about the file."""
    stream = open_stream(source, channel)
    samples = _joined(stream.blocks, stream.declared)
    return samples, stream.findings.notes(stream.declared)


def _joined(blocks: Iterator[np.ndarray], declared: Seconds | None) -> np.ndarray:
    """Joins blocks into one array without a second copy: of the declared length, doubled whenever it is too short."""
    claimed = declared if declared is not None and declared < _LONGEST_CLAIM else 0.0
    samples, count = np.empty(int((claimed + 1) * SAMPLE_RATE), np.float32), 0
    for block in blocks:
        if count + len(block) > len(samples):
            samples = np.concatenate([samples[:count], np.empty(count + 2 * len(block), np.float32)])
        samples[count : count + len(block)] = block
        count += len(block)
    return samples[:count]


def open_stream(source: bytes | Path, channel: int | None = None) -> Stream:
    """Opens a file, or the bytes of one. Raises AudioError as `decode` does, here or while the blocks are read.

    channel: only this one, from 0; by default the mean of all, or the loudest if they cancel each other. Gaps in a
    file's time stamps become silence, so that times stay correct. libsndfile reads mp3, WAV and FLAC, two to three
    times as fast as FFmpeg, which reads all other formats.
    """
    name = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
    try:
        if _size(source) == 0:
            raise AudioError("empty_audio", f"0 bytes: {name}")
        if pretends := _no_audio_at_all(_head(source, 256)):
            raise AudioError("corrupt_audio", f"{name}: {pretends}")
        stream = _open_sndfile(source, name, channel) or _open_ffmpeg(source, name, channel)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AudioError("corrupt_audio", f"{name}: {error}") from error
    if channel is not None and channel >= stream.channels:
        raise AudioError("corrupt_audio", f"{name}: channel {channel} does not exist, it has {stream.channels}")
    stream.findings.more_follows = _more_follows(source)
    return replace(stream, blocks=_checked(stream, name))


def _no_audio_at_all(head: bytes) -> str:
    """What a failed download left instead of audio; "" if it is not such a file."""
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file: git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not audio: the download failed"
    return ""


def _checked(stream: Stream, name: str) -> Iterator[np.ndarray]:
    """Passes blocks on; checks that they are not empty and finite, and adds the file name to decoder errors."""
    count = 0
    findings = stream.findings
    try:
        for block in stream.blocks:
            if block.size:
                if not np.isfinite(block.sum()) and not np.isfinite(block).all():
                    raise AudioError("non_finite_audio", name)
                count += block.size
                findings.seconds = count / SAMPLE_RATE
                yield block
    except (av.FFmpegError, soundfile.LibsndfileError, OSError, ValueError) as error:
        raise AudioError("corrupt_audio", f"{name}: {error}") from error
    if count == 0:
        raise AudioError("empty_audio", name)


def _open_sndfile(source: bytes | Path, name: str, channel: int | None) -> Stream | None:
    """None if the file has another format or libsndfile cannot open it."""
    if not _is_for_sndfile(source):
        return None
    pieces = _joined_mp3(source) if _is_mp3(_head(source)) else []
    if not pieces:
        return _sndfile_stream(source, name, channel)
    opened = [_sndfile_stream(piece, name, channel) for piece in pieces]
    streams = [stream for stream in opened if stream is not None]  # the data after the first file may not be audio
    if not streams:
        return None
    return replace(
        streams[0],
        declared=sum(stream.declared or 0.0 for stream in streams),
        blocks=itertools.chain.from_iterable(stream.blocks for stream in streams),
    )


def _sndfile_stream(source: bytes | Path, name: str, channel: int | None) -> Stream | None:
    try:
        file = soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source))
    except (soundfile.LibsndfileError, RuntimeError):
        return None
    if file.samplerate < _SLOWEST or file.samplerate > _FASTEST:
        raise AudioError("corrupt_audio", f"{name}: a sample rate of {file.samplerate} Hz")
    if file.frames == 0:  # a header without a length: FFmpeg reads to the end
        file.close()
        return None
    findings = Findings()
    declared = file.frames / file.samplerate if 0 < file.frames < _ABSURD_FRAMES else None
    return Stream(
        sample_rate=file.samplerate,
        channels=file.channels,
        declared=declared and declared * _times_as_long(source),
        blocks=_sndfile_blocks(file, _Downmix(name, findings), channel),
        findings=findings,
    )


def _joined_mp3(source: bytes | Path) -> list[bytes]:
    """The files that an mp3 was joined from, empty for a single file: libsndfile stops at the end of the first one."""
    content = source if isinstance(source, bytes) else source.read_bytes()
    firsts = [place.start() for place in _FIRST_FRAME.finditer(content)]
    cuts = set(firsts[1:])
    for first, following in zip(firsts, [*firsts[1:], len(content)], strict=False):
        end = first + _bytes_of_mp3(content, first)
        if first < end < following - _UNACCOUNTED and _is_mp3(content[end : end + 12]):
            cuts.add(end)  # the next part is an mp3 without such a frame
    ends = [*sorted(cuts), len(content)]
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)] if cuts else []


def _bytes_of_mp3(content: bytes, first: int) -> int:
    """Number of bytes that the first frame of an mp3 declares, including itself; 0 if it declares none."""
    mark = min(at for tag in (b"Xing", b"Info") if (at := content.find(tag, first)) >= 0)
    flags = int.from_bytes(content[mark + 4 : mark + 8], "big")
    at = mark + 8 + (4 if flags & 1 else 0)
    return int.from_bytes(content[at : at + 4], "big") if flags & 2 else 0


def _times_as_long(source: bytes | Path) -> float:
    """Ratio of the declared to the real size, at least 1, of a WAV, AVI, Wave64 or CAF file: decoders use the real
    size. 1 for others, and for streams of unknown length, as pipes write them."""
    head, says = _head(source), _claimed_bytes(source)
    is_stream = head[:4] == b"RIFF" and says >= 0x7FFFFFFF
    return 1.0 if is_stream or says >= 1 << 62 or head[:4] == b"FORM" else max(1.0, says / _size(source))


def _claimed_bytes(source: bytes | Path) -> int:
    """Size of a WAV, AVI, Wave64, AIFF or CAF file according to its header; 0 for other formats."""
    head = _head(source, 24)
    if head[:4] == b"RIFF":
        return int.from_bytes(head[4:8], "little") + 8
    if head[:4] == b"FORM":
        return int.from_bytes(head[4:8], "big") + 8
    if head[:4] == b"riff":
        return int.from_bytes(head[16:24], "little")
    return _end_of_caf(source) if head[:4] == b"caff" else 0


_UNACCOUNTED = 4096  # bytes that may follow the chunks of a WAV file: tags of other formats, padding


def _more_follows(source: bytes | Path) -> bool:
    """Whether a file has more data than its first header describes: joined files, or a wrong length. Only for formats
    that declare their length."""
    head, size = _head(source), _size(source)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _behind_chunks(source, size)
    if head[4:8] == b"ftyp":
        return sum(name == b"moov" for name in _mp4_boxes(source, size)) > 1
    return head[:4] != b"RIFF" and 12 < _claimed_bytes(source) < size - _UNACCOUNTED


def _behind_chunks(source: bytes | Path, size: int) -> bool:
    at = 12
    while len(chunk := _head(source, 8, at)) == 8 and chunk[:4].isascii() and chunk[:4].decode().isprintable():
        name, length = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"RIFF":
            return True
        if name == b"data" and (length == 0 or at + 8 + length > size):
            return False  # unknown length, or truncated: all data is decoded
        at += 8 + length + length % 2
    return size - at > _UNACCOUNTED


def _mp4_boxes(source: bytes | Path, size: int) -> Iterator[bytes]:
    """Names of the boxes at the top of an MP4 file."""
    at = 0
    while len(box := _head(source, 16, at)) >= 8:
        length = int.from_bytes(box[:4], "big")
        length = int.from_bytes(box[8:], "big") if length == 1 else length or size - at
        if length < 8:
            return
        yield box[4:8]
        at += length


def _end_of_caf(source: bytes | Path) -> int:
    """Byte at which the audio of a CAF file ends, by its chunks; 0 if they do not tell."""
    at = 8
    while len(chunk := _head(source, 12, at)) == 12:
        size = int.from_bytes(chunk[4:], "big", signed=True)
        if chunk[:4] == b"data" or size < 0:
            return max(0, at + 12 + size)
        at += 12 + size
    return 0


def _size(source: bytes | Path) -> int:
    """Size in bytes. Raises AudioError if the file does not exist."""
    if isinstance(source, bytes):
        return len(source)
    try:
        if source.is_dir():
            raise AudioError("missing_audio", f"a folder: {source}")
        return source.stat().st_size
    except (OSError, ValueError) as error:  # no such file, an invalid name, or no permission
        hint = " (%20 and the like belong to URLs: write the real file name)" if "%" in source.name else ""
        raise AudioError("missing_audio", f"{getattr(error, 'strerror', None) or error}: {source}{hint}") from error


def _head(source: bytes | Path, count: int = 12, start: int = 0) -> bytes:
    if isinstance(source, bytes):
        return source[start : start + count]
    with source.open("rb") as file:
        file.seek(start)
        return file.read(count)


def _is_for_sndfile(source: bytes | Path) -> bool:
    head = _head(source)
    return _is_mp3(head) or head[:4] == b"fLaC" or (head[:4] == b"RIFF" and head[8:12] == b"WAVE")


def _is_mp3(head: bytes) -> bool:
    return head[:3] == b"ID3" or (len(head) > 2 and head[0] == 0xFF and head[1] in (0xFB, 0xF3, 0xF2, 0xFA))


def _sndfile_blocks(file: soundfile.SoundFile, downmix: _Downmix, channel: int | None) -> Iterator[np.ndarray]:
    stream = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")

    def blocks() -> Iterator[np.ndarray]:
        buffer = np.empty((_BLOCK, file.channels), np.float32)
        with file:
            while len(block := file.read(out=buffer)):
                yield block

    if channel is None:
        mixed = downmix.mono(blocks(), file.samplerate)
    else:
        mixed = (np.ascontiguousarray(block[:, channel]) for block in blocks())
    for mono in mixed:
        yield mono.copy() if file.samplerate == SAMPLE_RATE else stream.resample_chunk(mono, last=False)
    if file.samplerate != SAMPLE_RATE:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _mono(block: np.ndarray) -> np.ndarray:
    """Mean over channels, [n, channels] to [n]. Adding columns is several times as fast as `mean(axis=1)`."""
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
    findings = Findings()
    return Stream(
        sample_rate=stream.codec_context.sample_rate or 0,
        channels=stream.codec_context.channels or 0,
        declared=_if_cut_off(source, _declared(source, container, stream)),
        blocks=_ffmpeg_blocks(container, _Downmix(name, findings), channel, findings),
        findings=findings,
    )


def _declared(source: bytes | Path, container: av.container.InputContainer, stream: av.AudioStream) -> Seconds | None:
    """Length of the stream, or of the container if it has no other stream (Matroska, CAF): a film may be longer."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base) * _times_as_long(source)
    if tagged := stream.metadata.get("DURATION"):  # of each stream in Matroska: 00:00:09.500000000
        with contextlib.suppress(ValueError):
            hours, minutes, seconds = tagged.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - (container.start_time or 0) / av.time_base
    if container.duration and len(container.streams) == 1:
        return (container.duration - (container.start_time or 0)) / av.time_base
    return None


def _if_cut_off(source: bytes | Path, declared: Seconds | None) -> Seconds | None:
    """The declared length; infinity for an Ogg file that ends inside a page, because its real length is unknown."""
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
    container: av.container.InputContainer, downmix: _Downmix, channel: int | None, findings: Findings
) -> Iterator[np.ndarray]:
    stereo = container.streams.audio[0].codec_context.channels == 2
    resampler = av.AudioResampler(
        format="fltp" if stereo or channel is not None else "flt",
        layout=None if stereo or channel is not None else "mono",  # more than two channels: FFmpeg's weights
        rate=SAMPLE_RATE,
        frame_size=_BLOCK,
    )
    resampled = (
        block.to_ndarray() for frame in _timed_frames(container, findings) for block in resampler.resample(frame)
    )
    if channel is not None:
        yield from (block[channel] for block in resampled)
    elif stereo:
        yield from downmix.mono((block.T for block in resampled), SAMPLE_RATE)
    else:
        yield from (block[0] for block in resampled)


def _timed_frames(container: av.container.InputContainer, findings: Findings) -> Iterator[av.AudioFrame | None]:
    """Frames of the audio, silence for gaps in the time stamps, and None at the end. If the audio starts later than its
    film, silence comes first."""
    starts = (container.start_time or 0) / av.time_base
    expected: float | None = None  # when the next frame starts, if nothing is missing
    is_continuous = container.format.name == "ogg"  # pages of Ogg are continuous: a gap is a loss
    with container:
        for frame in container.decode(container.streams.audio[0]):
            if expected is None:
                expected = starts if frame.time is not None else None
            missing = frame.time - expected if expected is not None and frame.time is not None else 0.0
            if _GAP < missing < _LONGEST_GAP:
                if (expected or 0.0) > starts:
                    findings.gaps.append(((expected or 0.0) - starts, (expected or 0.0) - starts + missing))
                    findings.damaged |= is_continuous
                for silence in _silence(frame, missing):
                    yield silence
                    expected = (expected or 0.0) + silence.samples / silence.sample_rate
            elif missing < 0 and expected == starts:
                expected = frame.time  # samples before the start, which some decoders drop
            if expected is not None:
                expected += frame.samples / frame.sample_rate
            frame.pts = None  # time stamps of damaged files are not monotonic; the order is sufficient
            yield frame
        yield None


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


class _Downmix:
    """Mixes channels to one: their mean, or only the loudest if the mean would cancel the common signal.

    Decides from the first seconds, because returned samples cannot be changed later; checks until the end.
    """

    def __init__(self, name: str, findings: Findings) -> None:
        self._name, self._findings = name, findings
        self._products = np.zeros((0, 0))  # sums of products of channels, from one sample in 32
        self._heard = self._cancelled = 0.0  # energy of the channels, and the part in blocks where the mix cancels it

    def mono(self, blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        """blocks [n, channels], whose memory may be reused for the next one, to mono [n]. Raises AudioError if the
        mixed channels cancel each other overall."""
        held: list[np.ndarray] | None = []
        frames = 0
        for block in blocks:
            if block.shape[1] == 1:
                yield block[:, 0]
                continue
            self._hear(block)
            frames += len(block) if self._products.any() else 0  # leading silence does not count
            if held is None:
                yield self._mixed(block)
                continue
            held.append(block.copy())
            if frames >= _PROBE * rate:
                yield from self._decided(held)
                held = None
        if held:
            yield from self._decided(held)
        if len(self._products):
            self._look_back()

    def _decided(self, held: list[np.ndarray]) -> Iterator[np.ndarray]:
        if self._cancels():
            self._findings.only_channel = int(np.diag(self._products).argmax())
        self._compare()
        return map(self._mixed, held)

    def _mixed(self, block: np.ndarray) -> np.ndarray:
        only = self._findings.only_channel
        return _mono(block) if only is None else np.ascontiguousarray(block[:, only])

    def _hear(self, block: np.ndarray) -> None:
        some = block[::32].astype(np.float64)
        products = some.T @ some
        own = float(np.trace(products))
        self._heard += own
        self._cancelled += own if products.sum() < _CANCELS * own else 0.0
        self._products = self._products + products if len(self._products) else products

    def _cancels(self) -> bool:
        own = np.trace(self._products)
        return bool(own > 0 and self._products.sum() < _CANCELS * own)

    def _look_back(self) -> None:
        """Raises AudioError."""
        if self._findings.only_channel is None and self._cancelled > _MOST_CANCELLED * self._heard:
            raise AudioError("out_of_phase", f"{self._name}: the channels cancel each other: set channel")
        self._compare()

    def _compare(self) -> None:
        energy = np.diag(self._products)
        self._findings.dead_channel = bool(energy.min() <= 1e-6 * energy.max())
        if len(energy) == 2 and energy.min() > 0.01 * energy.max():
            alike = self._products[0, 1] / np.sqrt(energy[0] * energy[1])
            self._findings.channels_differ = bool(abs(alike) < 0.3)


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
    """Decodes the output of `encode_flac` to float32 [n]."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise AudioError("corrupt_audio", f"expected 16 kHz mono FLAC, found {rate} Hz, {samples.ndim} dimensions")
    return samples
