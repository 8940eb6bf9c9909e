"""Pictures of results: overlays, event pictures, contact sheets, videos.

Images are (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import colorsys
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from mos_perception.datatypes import Events, Instances, Tracks, TrackState
from mos_perception.errors import BagError
from mos_perception.masks import mask_box

WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (150, 150, 150)
ON, OFF, PAPER = (40, 110, 255), (235, 60, 50), (250, 250, 250)
FONT = cv2.FONT_HERSHEY_SIMPLEX
ARROW_S = 0.25  # a velocity arrow shows where the object is this much later


def colour(track_id: int) -> tuple[int, int, int]:
    """The RGB of a track: always the same, neighbours far apart; grey for id <= 0 (no track)."""
    if track_id <= 0:
        return GREY
    hue = (0.08 + (track_id - 1) * 0.61803398875) % 1.0  # golden-ratio steps never repeat
    return tuple(
        round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85 if track_id % 2 else 0.6, 1.0)
    )


def overlay(
    image: np.ndarray,
    instances: Instances,
    tracks: Tracks,
    text: str = '',
    fps: float | None = None,
    degraded: str = '',
) -> np.ndarray:
    """The frame with the masks of tracked instances, contours, `id score` and velocity arrows,
    `id static` where they do not move, and a status line.

    `text` is shown at the top left (modality, model), `degraded` in red after it, `fps` at the top
    right.
    """
    picture = image.copy()
    rows = tracks.of_instances(len(instances))
    ids = [int(tracks.ids[row]) if row >= 0 else 0 for row in rows]
    scale = _scale(picture)
    for mask, number in zip(instances.masks, ids):
        if number:  # what no track vouches for is not drawn
            _tint(picture, mask, colour(number), scale)
    for m in np.flatnonzero(tracks.instance < 0):
        if tracks.states[m] == TrackState.LOST:
            _dashed_box(picture, tracks.boxes[m], colour(int(tracks.ids[m])))
    for row, number, moves in zip(rows, ids, instances.moving):
        if row >= 0 and moves:
            _arrow(picture, tracks.boxes[row], tracks.velocities[row], colour(number), scale)
    top = _status(picture, text, degraded, fps, scale)
    for n, (box, score, number) in enumerate(zip(instances.boxes, instances.scores, ids)):
        if number:
            _label(
                picture,
                f'#{number} {score:.2f}' if instances.moving[n] else
                f'#{number} {instances.label(n)}',
                (int(box[0]), int(box[1])),
                top,
                colour(number),
                scale,
            )
    return picture


def tinted(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The frame with masks (N, H, W) bool, none empty, each in a colour of its own."""
    picture = image.copy()
    for number, mask in enumerate(masks, 1):
        _tint(picture, mask, colour(number), _scale(picture))
    return picture


def event_picture(events: Events, size: tuple[int, int], dark: bool = False) -> np.ndarray:
    """Events of a (height, width) sensor: brighter blue, darker red, on white or black; fuller
    where there are more.
    """
    height, width = size
    inside = (events.x < width) & (events.y < height)
    cells = events.y[inside].astype(np.int64) * width + events.x[inside]
    on = events.p[inside] > 0
    counts = np.stack([np.bincount(cells[which], minlength=height * width) for which in (on, ~on)])
    strength = np.minimum(counts.sum(0) * 0.5, 1.0)[:, None]
    ink = np.where((counts[0] >= counts[1])[:, None], np.array(ON), np.array(OFF))
    paper = np.array((16, 16, 20) if dark else PAPER)
    return (paper + strength * (ink - paper)).round().astype(np.uint8).reshape(height, width, 3)


def contact_sheet(images: Sequence[np.ndarray], columns: int, titles: Sequence[str] = (),
                  width: int = 320) -> np.ndarray:
    """Images in rows of `columns`, each `width` px wide, a title line above each where given; (0,
    0, 3) for none.
    """
    if not images:
        return np.zeros((0, 0, 3), np.uint8)
    gap, line = 4, 20 if titles else 0
    tiles = [
        cv2.resize(
            image,
            (width, max(1, round(image.shape[0] * width / image.shape[1]))),
            interpolation=cv2.INTER_AREA if image.shape[1] >= width else cv2.INTER_LINEAR,
        )
        for image in images
    ]
    tall = max(tile.shape[0] for tile in tiles) + line + gap
    columns = min(columns, len(tiles))
    sheet = np.full(
        (-(-len(tiles) // columns) * tall + gap, columns * (width + gap) + gap, 3), 32, np.uint8
    )
    for n, tile in enumerate(tiles):
        x, y = gap + n % columns * (width + gap), gap + n // columns * tall
        if n < len(titles):
            cv2.putText(sheet, titles[n], (x + 2, y + 14), FONT, 0.42, WHITE, 1, cv2.LINE_AA)
        sheet[y + line:y + line + tile.shape[0], x:x + width] = tile
    return sheet


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a PNG or JPEG, atomically. Raises BagError."""
    path = Path(path)
    good, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not good:
        raise BagError(f'picture {path} of {image.shape} cannot be encoded: use .png or .jpg')
    scratch = _scratch(path)
    scratch.write_bytes(data.tobytes())
    scratch.replace(path)


def write_video(path: Path, images: Iterable[np.ndarray], fps: float) -> Path:
    """Write a video atomically; the size is the first image's. Returns the path: .avi (MJPG) where
    mp4 is impossible.

    Raises BagError if there is no image, a size changes or no codec works; nothing is left behind
    then.
    """
    path, writer, scratch, size = Path(path), None, None, None
    try:
        for image in images:
            if writer is None:
                size = image.shape
                writer, scratch, path = _open_writer(path, size, fps)
            if image.shape != size:
                raise BagError(
                    f'video {path}: an image is {image.shape}, the first was {size}: give one size'
                )
            writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if writer is None:
            raise BagError(f'video {path}: there are no images to write')
        writer.release()
        scratch.replace(path)
    finally:
        if writer is not None:
            writer.release()
            scratch.unlink(missing_ok=True)
    return path


def _open_writer(
    path: Path, size: tuple[int, ...], fps: float
) -> tuple[cv2.VideoWriter, Path, Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, codec in (
        (path.suffix, 'MJPG' if path.suffix == '.avi' else 'mp4v'),
        ('.avi', 'MJPG'),
    ):
        target = path.with_suffix(suffix)
        scratch = _scratch(target)
        writer = cv2.VideoWriter(
            str(scratch), cv2.VideoWriter_fourcc(*codec), fps, (size[1], size[0])
        )
        if writer.isOpened():
            return writer, scratch, target
        writer.release()
        scratch.unlink(missing_ok=True)
    raise BagError(
        f'video {path} cannot be opened for writing at {size[1]}x{size[0]}: check folder, suffix '
        'and codecs'
    )


def _scratch(path: Path) -> Path:
    return path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')


def _scale(picture: np.ndarray) -> float:
    """Size of text and lines: 1 at 640x480, never too small to read."""
    return max(0.7, picture.shape[0] / 480)


def _lined(rgb: tuple[int, int, int], scale: float) -> tuple[tuple[tuple[int, int, int], int], ...]:
    """(colour, thickness) of a line and, first, of its dark rim: seen on any background."""
    thick = max(2, round(1.6 * scale))
    return (BLACK, thick + max(1, round(scale))), (rgb, thick)


def _tint(picture: np.ndarray, mask: np.ndarray, rgb: tuple[int, int, int], scale: float) -> None:
    x0, y0, x1, y1 = mask_box(mask)
    part, inside = picture[y0:y1, x0:x1], mask[y0:y1, x0:x1]
    part[inside] = (part[inside] * 0.55 + np.array(rgb) * 0.45).astype(np.uint8)
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for shade, thick in _lined(rgb, scale):
        cv2.drawContours(picture, contours, -1, shade, thick, cv2.LINE_AA)


def _arrow(
    picture: np.ndarray,
    box: np.ndarray,
    velocity: np.ndarray,
    rgb: tuple[int, int, int],
    scale: float,
) -> None:
    start = (box[:2] + box[2:]) / 2
    step = velocity * ARROW_S
    length = float(np.hypot(*step))
    if length < 4 * scale:
        return
    step = step * min(1.0, picture.shape[0] / 3 / length)
    ends = [tuple(np.round(point).astype(int).tolist()) for point in (start, start + step)]
    for shade, thick in _lined(rgb, scale):
        cv2.arrowedLine(
            picture, *ends, shade, thick, cv2.LINE_AA, tipLength=min(0.4, 8 * scale / length)
        )


def _dashed_box(picture: np.ndarray, box: np.ndarray, rgb: tuple[int, int, int]) -> None:
    x0, y0, x1, y1 = box.round().astype(int).tolist()
    for x in range(x0, x1, 8):
        for y in (y0, y1 - 1):
            cv2.line(picture, (x, y), (min(x + 4, x1), y), rgb, 1)
    for y in range(y0, y1, 8):
        for x in (x0, x1 - 1):
            cv2.line(picture, (x, y), (x, min(y + 4, y1)), rgb, 1)


def _label(
    picture: np.ndarray,
    text: str,
    corner: tuple[int, int],
    top: int,
    rgb: tuple[int, int, int],
    scale: float,
) -> None:
    """Dark text on a tab of the track's colour, above `corner`, inside the picture and below row
    `top`.
    """
    size, font = _text_size(text, scale)
    x = min(max(corner[0], 0), max(picture.shape[1] - size[0] - 4, 0))
    y = max(corner[1] - size[1] - 6, top)
    cv2.rectangle(picture, (x, y), (x + size[0] + 4, y + size[1] + 5), rgb, cv2.FILLED)
    cv2.putText(picture, text, (x + 2, y + size[1] + 2), FONT, font, BLACK, 1, cv2.LINE_AA)


def _status(picture: np.ndarray, text: str, degraded: str, fps: float | None, scale: float) -> int:
    """One dark strip at the top with what the picture was made from. Returns its height in px."""
    if not text and not degraded and fps is None:
        return 0
    (_, high), font = _text_size('Ag', scale)
    strip = picture[:high + 8]
    strip[:] = (strip * 0.35).astype(np.uint8)
    x = 4
    for part, rgb in ((text, WHITE), (f'DEGRADED: {degraded}' if degraded else '', (255, 110, 90))):
        if part:
            cv2.putText(picture, part, (x, high + 3), FONT, font, rgb, 1, cv2.LINE_AA)
            x += _text_size(part, scale)[0][0] + 10
    if fps is not None:
        right = f'{fps:.0f} fps'
        cv2.putText(
            picture,
            right,
            (picture.shape[1] - _text_size(right, scale)[0][0] - 4, high + 3),
            FONT,
            font,
            WHITE,
            1,
            cv2.LINE_AA,
        )
    return high + 8


def _text_size(text: str, scale: float) -> tuple[tuple[int, int], float]:
    """((width, height) px, font scale)."""
    font = 0.5 * scale
    return cv2.getTextSize(text, FONT, font, 1)[0], font
