"""The pictures of a run as it goes by: an overlay video and a contact sheet, in bounded memory."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from mos_perception.datatypes import EventWindow, Frame, Instances, Result, Tracks
from mos_perception.recording.results import NodeResult
from mos_perception.reports.visualize import (
    contact_sheet,
    event_picture,
    overlay,
    write_image,
    write_video,
)

SHEET_TILES = 12
FPS_FROM = 10  # results whose spacing gives the video's rate
SMALL_PX = 320  # lower pictures are enlarged before drawing, so that labels can be read


@dataclass(frozen=True)
class Picture:
    """One drawn result."""

    stamp_ns: int
    title: str
    image: np.ndarray


def draw(
    result: Result | NodeResult,
    frame: Frame | None,
    window: EventWindow | None,
    start_ns: int,
    panels: int = 1,
) -> Picture:
    """The result over its frame, or over its events without one; with 2 panels the events are shown
    beside it.
    """
    seconds = f'{(result.stamp_ns - start_ns) / 1e9:.2f} s'
    events = (
        event_picture(window.events, (window.height, window.width)) if window is not None else None
    )
    size = result.instances.size
    background = frame.image if frame is not None else events
    if background is None or background.shape[:2] != size:
        background = np.full((*size, 3), 128, np.uint8)
    tracked = result.tracks.of_instances(len(result.instances)) >= 0
    moving = int(np.count_nonzero(result.instances.moving & tracked))
    factor = -(-SMALL_PX // size[0])
    image = overlay(
        _enlarged(background, factor),
        *_scaled(result.instances, result.tracks, factor),
        text=f'{seconds}  {result.modality.value}  {moving} moving',
        degraded=result.degraded,
    )
    if panels == 2:
        beside = np.full_like(image, 128) if events is None else events
        image = np.hstack(
            [image, cv2.resize(beside, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)]
        )
    return Picture(result.stamp_ns, f'{seconds}  {moving} moving', image)


def _scaled(instances: Instances, tracks: Tracks, factor: int) -> tuple[Instances, Tracks]:
    """Both in an image `factor` times as large."""
    masks = instances.masks.repeat(factor, 1).repeat(factor, 2)
    return (replace(instances, masks=masks, boxes=instances.boxes * factor),
            replace(tracks, boxes=tracks.boxes * factor, velocities=tracks.velocities * factor))


def _enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)


def write_overlays(folder: Path, pictures: Iterable[Picture]) -> list[Path]:
    """Write overlay.mp4 and contact_sheet.png into the folder while the pictures come.

    Returns the files, none without pictures. Raises BagError when they cannot be written.
    """
    pictures = iter(pictures)
    first = list(itertools.islice(pictures, FPS_FROM))
    if not first:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    wide = first[0].image.shape[1] > 2 * first[0].image.shape[0]
    tiles = _Tiles(640 if wide else 400)
    video = write_video(
        folder / 'overlay.mp4',
        _same_size(tiles.watch(itertools.chain(first, pictures))),
        _fps(first),
    )
    sheet = folder / 'contact_sheet.png'
    shown = tiles.evenly()
    write_image(sheet, contact_sheet([tile.image for tile in shown], 3 if wide else 4,
                                     [tile.title for tile in shown], tiles.width))
    return [video, sheet]


class _Tiles:
    """Evenly spaced small pictures of a run of unknown length: the spacing doubles as it gets
    longer.
    """

    def __init__(self, width: int) -> None:
        """`width` in px of each."""
        self.width = width
        self._kept: list[Picture] = []
        self._stride = 1

    def watch(self, pictures: Iterator[Picture]) -> Iterator[Picture]:
        """Pass the pictures on, keeping some."""
        for n, picture in enumerate(pictures):
            if n % self._stride == 0:
                height = round(picture.image.shape[0] * self.width / picture.image.shape[1])
                small = cv2.resize(
                    picture.image, (self.width, height), interpolation=cv2.INTER_AREA
                )
                self._kept.append(replace(picture, image=small))
            if len(self._kept) > 4 * SHEET_TILES:
                self._kept, self._stride = self._kept[::2], self._stride * 2
            yield picture

    def evenly(self) -> list[Picture]:
        """At most SHEET_TILES of them, first and last included."""
        rows = (
            np.linspace(0, len(self._kept) - 1, min(SHEET_TILES, len(self._kept)))
            .round()
            .astype(int)
        )
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
        yield (
            picture.image if picture.image.shape[1::-1] == size else cv2.resize(picture.image, size)
        )
