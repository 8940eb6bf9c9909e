"""A contact sheet to look at: `python -m training.scenes.gallery --preset easy --out out/gallery.png`.

One row per clip and kind of picture, one column per frame: the frame, the events of the window before it (red brighter,
blue darker), and the objects (solid colour and M = moving, outline and S = static).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from mos_perception.datatypes import EventWindow
from training.scenes.clip import Clip
from training.scenes.presets import PRESETS
from training.scenes.simulate import render_clip
from training.scenes.splits import SPLITS

_COLOURS = np.array([[230, 60, 60], [60, 180, 75], [255, 200, 25], [70, 110, 230], [245, 130, 48], [145, 60, 180],
                     [70, 220, 230], [240, 50, 230]], np.uint8)


def event_picture(window: EventWindow) -> np.ndarray:
    """(H, W, 3) uint8: red where brighter events prevail, blue where darker ones do, white where there is none."""
    events, cells = window.events, window.height * window.width
    where = events.y.astype(np.int64) * window.width + events.x
    signed = np.bincount(where, np.where(events.p, 1.0, -1.0), minlength=cells).reshape(window.height, window.width)
    count = np.bincount(where, minlength=cells).reshape(window.height, window.width)
    picture = np.full((window.height, window.width, 3), 255, np.uint8)
    fade = (255 * np.exp(-0.7 * count)).astype(np.uint8)
    picture[..., 0] = np.where(signed >= 0, 255, fade)
    picture[..., 1] = fade
    picture[..., 2] = np.where(signed < 0, 255, fade)
    return picture


def truth_picture(clip: Clip, index: int) -> np.ndarray:
    """(H, W, 3) uint8: the grey frame with moving objects filled and static ones outlined, each lettered M or S."""
    picture = np.repeat(clip.frames[index].mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    for number in range(1, clip.moving.shape[1]):
        mask = clip.ids[index] == number
        if not mask.any():
            continue
        colour, moves = _COLOURS[number % len(_COLOURS)], bool(clip.moving[index, number])
        edge = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
        picture[edge if not moves else mask] = colour
        y, x = (int(v.mean()) for v in np.nonzero(mask))
        cv2.putText(picture, 'M' if moves else 'S', (max(x - 5, 0), y + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45,
                    (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def contact_sheet(clips: list[Clip], columns: int = 8) -> np.ndarray:
    """(rows * H, columns * W, 3) uint8 of evenly chosen frames."""
    rows = []
    for clip in clips:
        chosen = np.linspace(0, len(clip) - 1, min(columns, len(clip))).round().astype(int)
        kinds = ([clip.frames[i] for i in chosen], [event_picture(clip.window(i)) for i in chosen],
                 [truth_picture(clip, i) for i in chosen])
        for pictures in kinds:
            rows.append(np.concatenate([np.pad(picture, ((0, 2), (0, 2), (0, 0))) for picture in pictures], 1))
        rows.append(np.full((4, rows[-1].shape[1], 3), 128, np.uint8))
    return np.concatenate(rows)


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description='Draw a contact sheet of rendered clips.')
    parser.add_argument('--preset', default='easy', choices=PRESETS)
    parser.add_argument('--split', default='train', choices=SPLITS)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--count', type=int, default=4)
    parser.add_argument('--out', type=Path, default=Path('out/gallery.png'))
    options = parser.parse_args(arguments)
    clips = [render_clip(options.preset, options.seed + i, options.split) for i in range(options.count)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(options.out), contact_sheet(clips)[..., ::-1])
    for clip in clips:
        span = (clip.stamps_ns[-1] - clip.stamps_ns[0] + clip.period_ns) * 1e-9
        print(f'{clip.preset} seed {clip.seed}: {len(clip)} frames, {clip.moving.shape[1] - 1} objects, '
              f'{len(clip.events) / np.prod(clip.size) / span:.2f} events per pixel and second')
    print(f'wrote {options.out}')


if __name__ == '__main__':
    main()
