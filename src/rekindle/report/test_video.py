import re
import subprocess

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest

from rekindle.core.errors import ConfigError, LibraryError
from rekindle.report.video import encode_video, write_video


def a_film(count=12, height=64, width=96):
    for i in range(count):
        frame = np.full((height, width, 3), 240, np.uint8)
        frame[8:40, 4 + 5 * i : 20 + 5 * i] = (200, 40, 40)
        yield frame


def decoded(path):
    """Frames of an MP4 through ffmpeg itself, and what it says of the file."""
    to_raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    seen = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), *to_raw], capture_output=True, check=True)
    about = seen.stderr.decode()
    width, height = map(int, re.search(r"Video: h264.*yuv420p.*?, (\d+)x(\d+)", about).groups())
    return np.frombuffer(seen.stdout, np.uint8).reshape(-1, height, width, 3)


def test_an_mp4_reads_back_with_its_frames_size_rate_and_colours(tmp_path):
    path = tmp_path / "film.mp4"
    write_video(a_film(), path, fps=8)
    back = decoded(path)
    assert back.shape == (12, 64, 96, 3)
    assert imageio_ffmpeg.count_frames_and_secs(str(path)) == (12, pytest.approx(1.5, abs=0.02))
    for there, here in zip(back, a_film(), strict=True):
        assert np.abs(there.astype(int) - here).mean() < 6


def test_a_gif_reads_back_with_its_frames_size_rate_and_colours(tmp_path):
    path = tmp_path / "film.gif"
    write_video(a_film(), path, fps=8)
    back = iio.imread(path)
    assert back.shape == (12, 64, 96, 3) and iio.immeta(path)["duration"] in (120, 125, 130)
    for there, here in zip(back, a_film(), strict=True):
        assert np.abs(there.astype(int) - here).mean() < 1


def test_odd_sides_become_even(tmp_path):
    write_video(a_film(height=33, width=51), tmp_path / "film.mp4")
    assert decoded(tmp_path / "film.mp4").shape == (12, 34, 52, 3)


def test_a_failing_source_leaves_nothing_and_keeps_what_was_there(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"before")

    def breaks():
        yield from a_film(3)
        raise RuntimeError("the world ended")

    with pytest.raises(RuntimeError, match="the world ended"):
        write_video(breaks(), path)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("frames", "suffix", "fps", "message"),
    [
        ([], ".mp4", 8, "at least one frame"),
        ([np.zeros((8, 8, 3), np.uint8)], ".avi", 8, "'.avi'"),
        ([np.zeros((8, 8, 3), np.uint8)], ".mp4", 0, "got 0"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)], ".gif", 8, "as frame 1"),
    ],
)
def test_wrong_input_is_one_sentence(frames, suffix, fps, message):
    with pytest.raises(ConfigError, match=message):
        encode_video(frames, suffix, fps)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(LibraryError, match="nowhere"):
        write_video(a_film(2), tmp_path / "nowhere" / "film.gif")
