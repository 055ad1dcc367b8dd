"""Frames to a video: MP4 (H.264, plays everywhere) or GIF."""

import itertools
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rekindle.core.errors import ConfigError, LibraryError
from rekindle.library import files

Frame = UInt8[np.ndarray, "H W 3"]
SUFFIXES = (".mp4", ".gif")
DEFAULT_FPS = 8.0


def write_video(frames: Iterable[Frame], path: Path, fps: float = DEFAULT_FPS) -> None:
    """Write `path`, whole or not at all; its suffix says whether as MP4 or GIF.

    Raises:
        ConfigError: another suffix, no frames, frames of different sizes, or a rate that is not positive.
        LibraryError: the folder is missing or refuses.
    """
    files.write_bytes(Path(path), encode_video(frames, Path(path).suffix, fps))


def encode_video(frames: Iterable[Frame], suffix: str = ".mp4", fps: float = DEFAULT_FPS) -> bytes:
    """The bytes of such a file. Equal frames that follow each other become one longer frame in a GIF.

    Args:
        frames: one at a time, so an episode need not fit into memory.
        suffix: `.mp4` or `.gif`.
        fps: frames per second, above 0.
    """
    if suffix.lower() not in SUFFIXES:
        raise ConfigError(f"a video ends in .mp4 or .gif; got the suffix {suffix!r}. Rename the file.")
    if not fps > 0:
        raise ConfigError(f"fps must be above 0 frames per second; got {fps!r}.")
    checked = _checked(iter(frames))
    return _mp4(checked, fps) if suffix.lower() == ".mp4" else _gif(checked, fps)


def _checked(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Frames of one even size, at least one; an odd side repeats its last row or column."""
    first = next(frames, None)
    if first is None:
        raise ConfigError("a video needs at least one frame; got none.")
    for number, frame in enumerate(itertools.chain([first], frames)):
        if frame.shape != first.shape or frame.dtype != np.uint8:
            came = f"{frame.dtype} {list(frame.shape)} as frame {number}"
            raise ConfigError(f"frames must all be uint8 {[*first.shape[:2], 3]}; got {came}.")
        odd = [(0, side % 2) for side in frame.shape[:2]]
        yield np.ascontiguousarray(np.pad(frame, [*odd, (0, 0)], mode="edge"))


def _mp4(frames: Iterator[Frame], fps: float) -> bytes:
    """Pipe the frames through ffmpeg."""
    first = next(frames)
    size = f"{first.shape[1]}x{first.shape[0]}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{fps:g}", "-i", "-"]
        coded = [
            "-an",
            "-c:v",
            "libx264",
            "-pix_fmt",
            "yuv420p",
            "-crf",
            "20",
            "-preset",
            "fast",
            "-movflags",
            "+faststart",
        ]
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *raw, *coded, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0) as process:
            assert process.stdin and process.stderr
            try:
                for frame in itertools.chain([first], frames):
                    process.stdin.write(frame.tobytes())
                process.stdin.close()
            except BrokenPipeError:
                pass  # ffmpeg gave up; its own words are below
            except BaseException:
                process.kill()
                raise
            said = process.stderr.read().decode(errors="replace").strip()
        if process.returncode:
            raise LibraryError(f"ffmpeg could not write the video: {said or process.returncode}; try a .gif instead.")
        return path.read_bytes()


def _gif(frames: Iterator[Frame], fps: float) -> bytes:
    """One palette for all frames, so that still parts do not flicker."""
    pictures = [Image.fromarray(frame) for frame in frames]
    samples = [pictures[i] for i in sorted({0, len(pictures) // 2, len(pictures) - 1})]
    width, height = samples[0].size
    mosaic = Image.new("RGB", (width, height * len(samples)))
    for i, sample in enumerate(samples):
        mosaic.paste(sample, (0, i * height))
    palette = mosaic.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    flat = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.gif"
        flat[0].save(path, save_all=True, append_images=flat[1:], duration=round(1000 / fps), loop=0, optimize=False)
        return path.read_bytes()
