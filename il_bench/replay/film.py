"""Frames of episodes, side by side, and the files they become: .mp4, .gif, or a film strip .png."""

import io
from collections.abc import Iterator, Sequence

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from il_bench.protocol import CONTROL_HZ
from il_bench.pusht.renderer import Renderer
from il_bench.replay.again import ShownEpisode

_CAPTION = 40  # px above each frame
_ONE_LINE = 440  # px that a caption of one line takes
_STRIP = 8  # frames of a film strip
_GAP = 4
_PAUSE = 2000  # ms that a .gif stays at its end before it begins again

Frame = NDArray[np.uint8]


def frames(episodes: Sequence[ShownEpisode], size: int) -> Iterator[Frame]:
    """Draw the steps of episodes in step, (size + caption, n * size, 3) each; the shorter ones wait."""
    renderer = Renderer()
    for step in range(max(len(each.rows) for each in episodes)):
        yield np.concatenate([_frame(renderer, each, step, size) for each in episodes], axis=1)


def _frame(renderer: Renderer, shown: ShownEpisode, step: int, size: int) -> Frame:
    row = min(step, len(shown.rows) - 1)
    ax, ay, x, y, angle, to_x, to_y, coverage = shown.rows[row].tolist()
    is_over = row == len(shown.rows) - 1
    action = None if is_over else (to_x, to_y)
    arena = renderer.frame((ax, ay), (x, y, angle), width=size, height=size, action=action)
    ended = f", {shown.counted.ending or 'the end'}" if is_over else ""
    said = f"step {row}  coverage {coverage:.2f}{ended}"
    return np.concatenate([_caption((f"{shown.name[:28]}  {shown.seed}", said), size), arena])


def _caption(lines: tuple[str, str], width: int) -> Frame:
    """Write the lines into one where there is room, else one below the other."""
    is_wide = width >= _ONE_LINE
    text, height = ("  " if is_wide else "\n").join(lines), 15 if is_wide else max(9, width // 18)
    caption = Image.new("RGB", (width, _CAPTION), "white")
    font = ImageFont.load_default(height)
    ImageDraw.Draw(caption).text((width // 50, _CAPTION // 2), text, "black", font, anchor="lm")
    return np.asarray(caption)


def encode(episodes: Sequence[ShownEpisode], suffix: str, *, size: int, speed: float) -> bytes:
    """Return the file's content. speed: how many times as fast as the robot acts; a strip has none."""
    if suffix == ".png":
        return _strip(episodes, size)
    return (_mp4 if suffix == ".mp4" else _gif)(frames(episodes, size), CONTROL_HZ * speed)


def _strip(episodes: Sequence[ShownEpisode], size: int) -> bytes:
    """Draw frames of each episode, from its first to its last, a row an episode."""
    renderer, small = Renderer(), size // 2
    rows = []
    for each in episodes:
        steps = np.linspace(0, len(each.rows) - 1, _STRIP).round().astype(int)
        drawn = [_frame(renderer, each, step, size) for step in steps.tolist()]
        rows.append(
            np.concatenate(
                [np.pad(one, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for one in drawn], axis=1
            )
        )
    whole = Image.fromarray(np.concatenate(rows))
    file = io.BytesIO()
    whole.resize((whole.width * small // size, whole.height * small // size), Image.Resampling.LANCZOS).save(
        file, "PNG"
    )
    return file.getvalue()


def _mp4(shown: Iterator[Frame], rate: float) -> bytes:
    file = io.BytesIO()
    first = next(shown)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=max(1, round(rate)), options={"crf": "20"})
        stream.height, stream.width = (
            edge - edge % 2 for edge in first.shape[:2]
        )  # yuv420p needs even edges
        stream.pix_fmt = "yuv420p"
        for frame in (first, *shown):
            image = np.ascontiguousarray(frame[: stream.height, : stream.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _gif(shown: Iterator[Frame], rate: float) -> bytes:
    first = next(shown)
    # One palette, the first frame's, so that the file holds only what changes from one frame to the next.
    palette = Image.fromarray(first).quantize(64)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in (first, *shown)
    ]
    file = io.BytesIO()
    durations = [round(1000 / rate)] * (len(images) - 1) + [_PAUSE]
    options = {"save_all": True, "append_images": images[1:], "duration": durations, "loop": 0}
    images[0].save(file, "GIF", **options)
    return file.getvalue()
