"""Decodes with FFmpeg (PyAV): every format that libsndfile does not read."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from caspi.audio.base import BLOCK, SAMPLE_RATE, AudioError, Seconds
from caspi.audio.downmix import Downmix
from caspi.audio.headers import infinite_if_truncated, truncation_ratio
from caspi.audio.stream import Findings, Stream

# Formats that FFmpeg may detect: audio files only, no format that refers to other files or URLs (concat, HLS, SDP ...).
_CONTAINERS = (
    "mov,mp4,m4a,matroska,webm,ogg,mp3,aac,ac3,eac3,flac,wav,w64,rf64,aiff,au,caf,amr,amrnb,amrwb,asf,avi,mpeg,mpegts,"
    "wv,ape,tta,gsm,voc,ircam,nist,dts,mpc,mpc8,oma,sox,flv,3gp,ea,mlp,truehd,adx,aptx,sbc"
)
_MIN_GAP = 0.1  # seconds missing between two frames from which it is a gap and not rounding
_MAX_GAP = 3600.0  # seconds: a time stamp further ahead is damaged


def open_ffmpeg(source: bytes | Path, name: str, channel: int | None) -> Stream:
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
        declared=infinite_if_truncated(source, _declared(source, container, stream)),
        blocks=_ffmpeg_blocks(container, Downmix(name, findings), channel, findings),
        findings=findings,
    )


def _declared(source: bytes | Path, container: av.container.InputContainer, stream: av.AudioStream) -> Seconds | None:
    """Length of the stream, or of the container if it has no other stream (Matroska, CAF): a film may be longer."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base) * truncation_ratio(source)
    if duration_tag := stream.metadata.get("DURATION"):  # of each stream in Matroska: 00:00:09.500000000
        with contextlib.suppress(ValueError):
            hours, minutes, seconds = duration_tag.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - (container.start_time or 0) / av.time_base
    if container.duration and len(container.streams) == 1:
        return (container.duration - (container.start_time or 0)) / av.time_base
    return None


def _ffmpeg_blocks(
    container: av.container.InputContainer, downmix: Downmix, channel: int | None, findings: Findings
) -> Iterator[np.ndarray]:
    stereo = container.streams.audio[0].codec_context.channels == 2
    resampler = av.AudioResampler(
        format="fltp" if stereo or channel is not None else "flt",
        layout=None if stereo or channel is not None else "mono",  # more than two channels: FFmpeg's weights
        rate=SAMPLE_RATE,
        frame_size=BLOCK,
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
    file_start = (container.start_time or 0) / av.time_base
    expected: float | None = None  # when the next frame starts, if nothing is missing
    is_continuous = container.format.name == "ogg"  # pages of Ogg are continuous: a gap is a loss
    with container:
        for frame in container.decode(container.streams.audio[0]):
            if expected is None:
                expected = file_start if frame.time is not None else None
            missing = frame.time - expected if expected is not None and frame.time is not None else 0.0
            if _MIN_GAP < missing < _MAX_GAP:
                if (expected or 0.0) > file_start:
                    findings.gaps.append(((expected or 0.0) - file_start, (expected or 0.0) - file_start + missing))
                    findings.damaged |= is_continuous
                for silence in _silence(frame, missing):
                    yield silence
                    expected = (expected or 0.0) + silence.samples / silence.sample_rate
            elif missing < 0 and expected == file_start:
                expected = frame.time  # samples before the start, which some decoders drop
            if expected is not None:
                expected += frame.samples / frame.sample_rate
            frame.pts = None  # time stamps of damaged files are not monotonic; the order is sufficient
            yield frame
        yield None


def _silence(template: av.AudioFrame, seconds: Seconds) -> Iterator[av.AudioFrame]:
    """Frames of silence in the format of another frame."""
    remaining = round(seconds * template.sample_rate)
    while remaining > 0:
        frame = av.AudioFrame(template.format.name, template.layout.name, min(remaining, BLOCK))
        frame.sample_rate = template.sample_rate
        for plane in frame.planes:
            plane.update(bytes([128 if template.format.name.startswith("u8") else 0]) * plane.buffer_size)
        remaining -= frame.samples
        yield frame
