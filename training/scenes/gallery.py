"""A contact sheet to look at: `python -m training.scenes.gallery --preset easy --out
out/gallery.jpg`.

One row per kind of picture, one column per frame: the frame, the events of the window before it
(red brighter, blue darker), the objects (solid and M = moving, outline and S = static, U = the
unknown band between), the true flow to the next frame (hue = direction, saturation = speed, black =
hidden or gone there) and depth (near bright). `--all --out docs/gallery/` draws every preset, two
clips each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from mos_perception.datatypes import EventWindow
from training.scenes.catalog import SCENES, render_clip, scene_name
from training.scenes.clip import Clip
from training.scenes.presets import PRESETS
from training.scenes.splits import SPLITS
from training.scenes.timing import to_s
from training.scenes.truth import Truth, render_truth

_COLOURS = np.array([[230, 60, 60], [60, 180, 75], [255, 200, 25], [70, 110, 230], [245, 130, 48],
                     [145, 60, 180], [70, 220, 230], [240, 50, 230]], np.uint8)


def event_picture(window: EventWindow) -> np.ndarray:
    """(H, W, 3) uint8: red where brighter events prevail, blue where darker ones do, white where
    there is none."""
    events, cells = window.events, window.height * window.width
    where = events.y.astype(np.int64) * window.width + events.x
    signed = np.bincount(where, np.where(events.p, 1.0, -1.0),
                         minlength=cells).reshape(window.height, window.width)
    count = np.bincount(where, minlength=cells).reshape(window.height, window.width)
    picture = np.full((window.height, window.width, 3), 255, np.uint8)
    fade = (255 * np.exp(-0.7 * count)).astype(np.uint8)
    picture[..., 0] = np.where(signed >= 0, 255, fade)
    picture[..., 1] = fade
    picture[..., 2] = np.where(signed < 0, 255, fade)
    return picture


def truth_picture(clip: Clip, index: int, unknown: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 3) uint8: the grey frame with moving objects filled and static ones outlined, each
    lettered M, S or U.

    `unknown` (K + 1,) bool, the objects whose flag says little.
    """
    picture = np.repeat(clip.frames[index].mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    for number in range(1, clip.moving.shape[1]):
        mask = clip.ids[index] == number
        if not mask.any():
            continue
        colour, moves = _COLOURS[number % len(_COLOURS)], bool(clip.moving[index, number])
        edge = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8),
                                 borderValue=0).astype(bool)
        picture[edge if not moves else mask] = colour
        y, x = (int(v.mean()) for v in np.nonzero(mask))
        letter = 'U' if unknown is not None and unknown[number] else 'M' if moves else 'S'
        cv2.putText(picture, letter, (max(x - 5, 0), y + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45,
                    (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def flow_picture(flow: np.ndarray, valid: np.ndarray, most: float) -> np.ndarray:
    """(H, W, 3) uint8 colour wheel of flow (H, W, 2): hue is direction, full saturation at `most`
    px."""
    hue = (np.degrees(np.arctan2(flow[..., 1], flow[..., 0])) % 360 / 2).astype(np.uint8)
    strong = np.clip(255 * np.linalg.norm(flow, axis=2) / max(most, 1e-6), 0, 255).astype(np.uint8)
    picture = cv2.cvtColor(np.stack([hue, strong, np.full_like(hue, 255)], -1), cv2.COLOR_HSV2RGB)
    picture[~valid] = 0
    return picture


def depth_picture(depth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: inverse depth from 0.7 m (bright) to 5 m (dark)."""
    near = np.clip((1 / np.maximum(depth, 0.1) - 1 / 5) / (1 / 0.7 - 1 / 5), 0, 1)
    return cv2.applyColorMap((255 * near).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]


def contact_sheet(clips: list[Clip], columns: int = 8,
                  truths: list[Truth] | None = None) -> np.ndarray:
    """(rows * H, columns * W, 3) uint8 of evenly chosen frames; with `truths`, flow and depth
    below."""
    rows = []
    for clip, truth in zip(clips, truths or [None] * len(clips)):
        chosen = np.linspace(0, len(clip) - (2 if truth else 1),
                             min(columns, len(clip))).round().astype(int)
        kinds = [[clip.frames[i] for i in chosen]]
        if len(clip.events):
            kinds.append([event_picture(clip.window(i)) for i in chosen])
        kinds.append([truth_picture(clip, i, truth.unknown[i] if truth else None) for i in chosen])
        if truth:
            most = float(np.quantile(np.linalg.norm(truth.flow, axis=-1), 0.99))
            kinds += [[flow_picture(truth.flow[i], truth.flow_valid[i], most) for i in chosen],
                      [depth_picture(truth.depth[i]) for i in chosen]]
        for pictures in kinds:
            rows.append(np.concatenate([np.pad(picture, ((0, 2), (0, 2), (0, 0)))
                                        for picture in pictures], 1))
        rows.append(np.full((4, rows[-1].shape[1], 3), 128, np.uint8))
    return np.concatenate(rows)


def save_small(path: Path, sheet: np.ndarray, most_bytes: int = 300_000) -> int:
    """Write the sheet (JPEG quality is lowered, then the size halved, until it fits); returns its
    bytes."""
    if path.suffix == '.png':
        cv2.imwrite(str(path), sheet[..., ::-1])
        return path.stat().st_size
    quality = 88
    while True:
        _, data = cv2.imencode('.jpg', sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= most_bytes or min(sheet.shape[:2]) < 200:
            path.write_bytes(data.tobytes())
            return len(data)
        quality -= 12
        if quality < 60:
            sheet, quality = cv2.resize(sheet, None, fx=0.75, fy=0.75,
                                        interpolation=cv2.INTER_AREA), 88


def draw(preset: str, split: str, seeds: range, path: Path, columns: int) -> None:
    """Draw the clips of some seeds of a preset into a file and print what is in them."""
    clips = [render_clip(preset, seed, split) for seed in seeds]
    # a 2-D scene has no depth, and its frames have no exact flow but the scene's own
    # (training.datasets.mosis2d_wrappers)
    truths = [render_truth(preset, seed, split, parts=('dense',))
              for seed in seeds] if preset in PRESETS else None
    size = save_small(path, contact_sheet(clips, columns, truths))
    for clip in clips:
        span = to_s(clip.stamps_ns[-1] - clip.stamps_ns[0] + clip.period_ns)
        print(
            f'{clip.preset} seed {clip.seed}: {len(clip)} frames, '
            f'{clip.moving.shape[1] - 1} objects, '
            f'{clip.moving.any(0).sum()} move, '
            f'{len(clip.events) / np.prod(clip.size) / span:.2f} events per pixel and second'
        )
    print(f'wrote {path} ({size / 1e3:.0f} kB)')


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description='Draw contact sheets of rendered clips.')
    parser.add_argument('--preset', default='easy', type=scene_name)
    parser.add_argument('--all', action='store_true', help='every preset, into the folder --out')
    parser.add_argument('--split', default='train', choices=SPLITS)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--count', type=int, default=2)
    parser.add_argument('--columns', type=int, default=6)
    parser.add_argument('--out', type=Path, default=Path('out/gallery.jpg'))
    options = parser.parse_args(arguments)
    seeds = range(options.seed, options.seed + options.count)
    (options.out if options.all else options.out.parent).mkdir(parents=True, exist_ok=True)
    for preset in SCENES if options.all else [options.preset]:
        path = options.out / f'{preset}.jpg' if options.all else options.out
        draw(preset, options.split, seeds, path, options.columns)


if __name__ == '__main__':
    main()
