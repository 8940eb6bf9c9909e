"""The pictures of a run as it goes by: an overlay video and a contact sheet, in bounded memory."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mos_perception.datatypes import EventWindow, Frame, Result
from mos_perception.results import NodeResult
from mos_perception.visualize import contact_sheet, event_picture, overlay, write_image, write_video

SHEET_TILES = 12
FPS_FROM = 30  # results whose spacing gives the video's rate
SMALL_PX = 320  # pictures lower than this are doubled, so that labels can be read


@dataclass(frozen=True)
class Picture:
    """One drawn result."""

    stamp_ns: int
    title: str
    image: np.ndarray


def draw(result: Result | NodeResult, frame: Frame | None, window: EventWindow | None, start_ns: int,
         panels: int = 1) -> Picture:
    """The result over its frame, or over its events without one; with 2 panels the events are shown beside it."""
    seconds = f'{(result.stamp_ns - start_ns) / 1e9:.2f} s'
    events = event_picture(window.events, (window.height, window.width)) if window is not None else None
    size = result.instances.size
    background = frame.image if frame is not None else events
    if background is None or background.shape[:2] != size:
        background = np.full((*size, 3), 128, np.uint8)
    moving = int(np.count_nonzero(result.instances.moving))
    image = overlay(background, result.instances, result.tracks, degraded=result.degraded,
                    text=f'{seconds}  {result.modality.value}  {moving} moving')
    if panels == 2:
        beside = np.full_like(image, 128) if events is None else events
        image = np.hstack([image, cv2.resize(beside, size[::-1], interpolation=cv2.INTER_AREA)])
    if size[0] < SMALL_PX:
        image = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    return Picture(result.stamp_ns, f'{seconds}  {moving} moving', image)


def write_album(folder: Path, pictures: Iterable[Picture]) -> list[Path]:
    """Write overlay.mp4 and contact_sheet.png into the folder while the pictures come.

    Returns the files, none without pictures. Raises BagError when they cannot be written.
    """
    pictures = iter(pictures)
    first = list(itertools.islice(pictures, FPS_FROM))
    if not first:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    tiles = _Tiles()
    video = write_video(folder / 'overlay.mp4', _same_size(tiles.watch(itertools.chain(first, pictures))), _fps(first))
    sheet = folder / 'contact_sheet.png'
    write_image(sheet, contact_sheet([tile.image for tile in tiles.evenly()], 3 if first[0].image.shape[1] > 900 else 4,
                                     [tile.title for tile in tiles.evenly()], 480))
    return [video, sheet]


class _Tiles:
    """Evenly spaced pictures of a run of unknown length: the spacing doubles as it gets longer."""

    def __init__(self) -> None:
        self._kept: list[Picture] = []
        self._stride = 1

    def watch(self, pictures: Iterator[Picture]) -> Iterator[Picture]:
        """Pass the pictures on, keeping some."""
        for n, picture in enumerate(pictures):
            if n % self._stride == 0:
                self._kept.append(picture)
            if len(self._kept) > 4 * SHEET_TILES:
                self._kept, self._stride = self._kept[::2], self._stride * 2
            yield picture

    def evenly(self) -> list[Picture]:
        """At most SHEET_TILES of them, first and last included."""
        rows = np.linspace(0, len(self._kept) - 1, min(SHEET_TILES, len(self._kept))).round().astype(int)
        return [self._kept[row] for row in rows]


def _fps(pictures: list[Picture]) -> float:
    steps = [after.stamp_ns - before.stamp_ns for before, after in itertools.pairwise(pictures)]
    steps = [step for step in steps if step > 0]
    return min(max(1e9 / statistics.median(steps), 1.0), 120.0) if steps else 10.0


def _same_size(pictures: Iterator[Picture]) -> Iterator[np.ndarray]:
    """The images, scaled to the size of the first: a stream may change size when it starts anew."""
    size = None
    for picture in pictures:
        size = size or picture.image.shape[1::-1]
        yield picture.image if picture.image.shape[1::-1] == size else cv2.resize(picture.image, size)
