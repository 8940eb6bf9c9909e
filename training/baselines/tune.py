"""Tune a classical baseline on the train split.

`python -m training.baselines.tune --baseline mog2 --preset mid` scores every combination of the
constants that were swept, best last.
"""

from __future__ import annotations

import argparse
import itertools

from training.baselines import BASELINES
from training.baselines.background import BackgroundSettings
from training.baselines.event_counts import EventCountSettings
from training.baselines.homography import HomographySettings
from training.baselines.scoring import mean_scores, score_baseline
from training.scenes import PRESETS, render_clip
from training.scenes.presets import find_preset

SWEEPS: dict[str, tuple[type, dict[str, tuple[float, ...]]]] = {
    'homography': (HomographySettings, {
        'residual_px': (0.75, 1.0, 1.5, 2.0),
        'opening': (3, 5),
        'support': (0.03, 0.07),
        'edge': (0.5, 0.6, 0.7, 0.8),
    }),
    'mog2': (BackgroundSettings, {
        'variance': (9, 16, 25),
        'blur': (0.0, 0.8),
        'opening': (0, 3, 5),
        'closing': (9, 13),
    }),
    'events': (EventCountSettings, {
        'density': (0.2, 0.3),
        'active_share': (0.1, 0.2, 0.3),
        'contrast': (1.5, 2.0, 3.0),
        'lateness': (0.03, 0.06),
        'closing': (5, 9),
    }),
}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--baseline', default='homography', choices=BASELINES)
    parser.add_argument('--preset', default='train', choices=PRESETS)
    parser.add_argument('--seed', type=int, default=0, help='first clip')
    parser.add_argument('--clips', type=int, default=12)
    parser.add_argument('--frames', type=int, default=16, help='length of each clip')
    parser.add_argument('--warm-up', type=int, default=8, help='frames that are seen, not scored')
    args = parser.parse_args(arguments)
    preset = find_preset(args.preset)
    preset = find_preset(preset, duration_s=args.frames / preset.fps)
    clips = [render_clip(preset, args.seed + i, 'train') for i in range(args.clips)]
    settings_type, sweep = SWEEPS[args.baseline]
    results = []
    for values in itertools.product(*sweep.values()):
        settings = settings_type(**dict(zip(sweep, values, strict=True)))
        scorer = score_baseline(BASELINES[args.baseline](settings), clips, args.warm_up)
        results.append((*(mean_scores(scorer) or (0.0, 0.0)), values))
    for miou01, instances, values in sorted(results):
        constants = dict(zip(sweep, values, strict=True))
        print(f'mIoU01 {miou01:.3f} mIoU_ins {instances:.3f}', constants)


if __name__ == '__main__':
    main()
