"""What every classical baseline scores on every preset, and whether the levels keep their promise.

`python -m training.levels --clips 8 --write docs/levels.md`: a baseline must solve easy, none may
solve mid and hard.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from training.baselines import BASELINES
from training.baselines.scoring import mean_scores, score_baseline
from training.command import command
from training.scenes import SCENES, Clip, Preset, render_clip
from training.scenes.catalog import AnyPreset, find_scene, scene_name
from training.scenes.world import World, build_world

SOLVABLE, UNSOLVABLE = 0.6, 0.4
# frames that the baselines see before scoring begins: background subtraction needs them
WARM_UP = 12
# for a bag, for false alarms, without events
_NO_TABLE = ('demo', 'still', 'video', 'video-still', 'video-long')
_ABOUT = """# Levels: what the classical baselines score

Written by `python -m training.levels --write docs/levels.md`; the difficulty factors are in
`training/scenes/presets.py`, the baselines in `training/baselines`. A level's name says which
factor is off `mid`; `easy`, `mid` and `hard` set all of them. Bars: `easy` must be solvable by
some baseline (mIoU01 > {solvable}), `mid`, `hard` and every `*-hard` must not be (<
{unsolvable}); the other presets have no bar. mIoU01 / mIoU_ins are those of the released
protocol, averaged over the frames that hold a moving object; each clip has {warm_up} frames
before the first scored one, which all baselines see.

{settings}

{table}

Measured columns: camera = median motion of the far plane in % of the image width per frame at 30
Hz, parallax = mean residue of the static layers, clutter and distractors against the far plane in
px per frame at 160 px width (90th percentile over clips and frames in brackets), area = median
visible size of a moving object in % of the image, moving = mean number seen per frame, events per
pixel per second.
"""


@dataclass(frozen=True)
class Measured:
    """What the difficulty factors came to in the clips; see docs/levels.md for the units."""

    camera: float
    parallax: float
    parallax_high: float
    area: float
    moving: float
    events: float


@dataclass(frozen=True)
class Row:
    """One preset: (mIoU01, mIoU_ins) per baseline, None where nothing moves; `verdict` is '' where
    there is no bar."""

    preset: str
    split: str
    frames: int
    scores: dict[str, tuple[float, float] | None]
    measured: Measured
    best: str
    verdict: str


def score_preset(preset: AnyPreset | str, clips: int, seed: int = 0, split: str = 'test',
                 frames: int = 8, min_pixels: int = 12) -> Row:
    """Every baseline on the same `clips` clips, the last `frames` of each."""
    preset = find_scene(preset)
    split = 'other' if preset.name == 'other' else split
    count = frames + WARM_UP
    longer = (replace(preset, duration_s=count / preset.fps, dropped_frames=0.0)
              if isinstance(preset, Preset) else replace(preset, frames=count))
    rendered = [render_clip(longer, seed + i, split) for i in range(clips)]
    scores = {}
    for name, kind in BASELINES.items():
        scorer = score_baseline(kind(), rendered, WARM_UP, min_pixels)
        scores[name] = mean_scores(scorer)
    found = {name: score[0] for name, score in scores.items() if score is not None}
    best = max(found, key=lambda name: found[name], default='')
    worlds = [build_world(longer, seed + i, split) if isinstance(longer, Preset) else None
              for i in range(clips)]
    measured = measure(longer, rendered, worlds, min_pixels)
    return Row(preset.name, split, clips * frames, scores, measured, best,
               verdict(preset.name, found.get(best, 0.0)))


def verdict(name: str, best: float) -> str:
    """Whether the best baseline's mIoU01 keeps the bar of the preset `name`: 'holds', 'MISSED', or
    '' without a bar."""
    if name == 'easy':
        return 'holds' if best > SOLVABLE else 'MISSED'
    if name in ('mid', 'hard') or name.endswith('-hard'):
        return 'holds' if best < UNSOLVABLE else 'MISSED'
    return ''


def measure(preset: AnyPreset, clips: list[Clip], worlds: list[World | None],
            min_pixels: int) -> Measured:
    """What the difficulty factors came to in `clips` and the `worlds` they show; camera and
    parallax are NaN for 2-D scenes."""
    camera, residue, areas, moving, rates = [], [], [], [], []
    for clip, world in zip(clips, worlds, strict=True):
        for shift, parallax in static_motion(world, preset) if world else [(np.nan, np.nan)]:
            camera.append(shift / preset.size[1] * 100 * preset.fps / 30)
            residue.append(parallax / preset.size[1] * 160)
        for i in range(len(clip)):
            masks, _ = clip.moving_masks(i, min_pixels)
            moving.append(len(masks))
            areas.extend(masks.mean((1, 2)) * 100)
        span = (clip.events.t[-1] - clip.events.t[0]) * 1e-9 if len(clip.events) else 1.0
        rates.append(len(clip.events) / max(span, 1e-3) / (preset.size[0] * preset.size[1]))
    return Measured(float(np.median(camera)), float(np.median(residue)),
                    float(np.quantile(residue, 0.9)), float(np.median(areas)) if areas else 0.0,
                    float(np.mean(moving)), float(np.median(rates)))


def static_motion(world: World, preset: Preset) -> list[tuple[float, float]]:
    """(motion of the far plane, mean residue of the other static surfaces against it), px, per
    frame period.

    Means over a 5 x 5 grid of the image, of the plane-induced displacement of the pixels there.
    """
    height, width = preset.size
    x, y = np.meshgrid(np.linspace(0, width - 1, 5), np.linspace(0, height - 1, 5))
    grid = np.stack([x.ravel(), y.ravel(), np.ones(25)])
    times = np.arange(preset.frame_slots) / preset.fps
    moves = []
    for surface in (s for s in world.surfaces if s.track.still and not s.tilt):
        maps = world.homographies(surface, times, preset.size)
        points = maps[1:] @ np.linalg.inv(maps[:-1]) @ grid
        moves.append(points[:, :2] / points[:, 2:] - grid[:2])
    far, rest = moves[0], moves[1:] or moves[:1]
    shift = np.linalg.norm(far, axis=1).mean(1)
    residue = np.mean([np.linalg.norm(move - far, axis=1).mean(1) for move in rest], axis=0)
    return list(zip(shift.tolist(), residue.tolist(), strict=True))


def as_markdown(rows: list[Row]) -> str:
    """The table."""
    head = ['preset', *BASELINES, 'best', 'bar', 'camera', 'parallax', 'area', 'moving', 'ev/px/s']
    lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    for row in rows:
        m = row.measured
        values = ['-' if score is None else '{:.3f} / {:.3f}'.format(*score)
                  for score in row.scores.values()]
        motion = (
            ['-', '-']
            if np.isnan(m.camera)
            else [f'{m.camera:.2f}', f'{m.parallax:.1f} ({m.parallax_high:.1f})']
        )
        cells = [row.preset, *values, row.best, row.verdict, *motion, f'{m.area:.2f}',
                 f'{m.moving:.1f}', f'{m.events:.1f}']
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


@command('levels')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description='Score the classical baselines on the presets.')
    parser.add_argument('--presets', nargs='+', type=scene_name,
                        default=[name for name in SCENES if name not in _NO_TABLE])
    parser.add_argument('--clips', type=int, default=8)
    parser.add_argument('--frames', type=int, default=8, help='scored frames per clip')
    parser.add_argument('--seed', type=int, default=0, help='first clip')
    parser.add_argument('--min-pixels', type=int, default=12,
                        help='smaller objects are no ground truth')
    parser.add_argument('--json', type=Path)
    parser.add_argument('--write', type=Path, help='the page to write, docs/levels.md')
    given = parser.parse_args(arguments)
    rows = [score_preset(name, given.clips, given.seed, 'test', given.frames, given.min_pixels)
            for name in track(given.presets, 'presets', console=Console(stderr=True))]
    table = as_markdown(rows)
    settings = (
        f'{given.clips} clips of split test (`other`: split other) per preset, '
        f'seeds from {given.seed}, '
        f'{given.frames} scored frames each, objects under {given.min_pixels} px ignored.'
    )
    print(settings, table, sep='\n\n')
    if given.json:
        given.json.write_text(json.dumps({'about': settings, 'rows': [asdict(row) for row in rows]},
                                         indent=1))
    if given.write:
        given.write.write_text(_ABOUT.format(solvable=SOLVABLE, unsolvable=UNSOLVABLE,
                                             warm_up=WARM_UP, settings=settings, table=table))
    return 0


if __name__ == '__main__':
    sys.exit(main())
