"""What `mos adapt` gains on video with truth: `python -m training.evaluate_adapt --data FOLDER`.

Each sequence of a DAVIS folder, or rendered clip (`--clips`), becomes a bag; its first half is
learned from, J of the union of the instances is measured on its second half, before and after, by
the code that the robot runs. The truth is seen by the score alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mos_perception.config import Config, from_dict
from mos_perception.errors import MosError
from mos_perception.evaluation.boundary import region_j
from mos_perception.formats import davis
from mos_perception.masks import masks_at_size
from mos_perception.models import load_model
from mos_perception.recording.bag import BagWriter
from mos_perception.stages import StageTimes
from training.adapt.adapt import Settings, adapt
from training.evaluate_video import Video, model_predictor, read_videos
from training.scenes import render_clip
from training.scenes.presets import PRESETS, find_preset
from training.scenes.splits import SPLITS
from training.video_cache import moving_label

HOLD_OUT = 0.5
CLIP_S = 4.0  # of a rendered one
SHORT = Settings(hold_out=HOLD_OUT, least_s=0.5)  # DAVIS' sequences last for two seconds


def second_half_j(model: str, video: Video, config: Config) -> float:
    """Mean J of the frames that nothing is learned from; the model sees the first half, too."""
    loaded = load_model(replace(config, model=model, movable_model=''))
    predict = model_predictor(loaded, loaded.card.surroundings, StageTimes())
    scores = []
    for found, truth in zip(predict(video), video.masks, strict=True):
        void = truth == davis.VOID
        masks = masks_at_size(found.masks, truth.shape)
        union = masks.any(0) if len(masks) else np.zeros(truth.shape, bool)
        scores.append(region_j(union, (truth > 0) & ~void, void))
    return float(np.mean(scores[round((1 - HOLD_OUT) * len(scores)):]))


def one_video(video: Video, config: Config, settings: Settings) -> dict[str, object]:
    """A row: `before`, `after`, and `refused`, why no model was written; then the start stays."""
    before = second_half_j(config.movable_model or config.model, video, config)
    with tempfile.TemporaryDirectory() as folder:
        bag, out = Path(folder) / video.name, Path(folder) / 'adapted.onnx'
        with BagWriter(bag) as writer:
            for frame in video.frames:
                writer.write_frame('/camera/image_raw', frame)
        try:
            done = adapt([bag], out, config, settings)
        except MosError as error:
            return {'name': video.name, 'before': before, 'after': before, 'refused': str(error)}
        return {'name': video.name, 'before': before, 'refused': '',
                'after': second_half_j(str(out), video, config),
                'seconds': round(done.seconds, 1), 'held out, by itself': {
                    'before': done.before.as_dict(), 'after': done.after.as_dict()}}


def rendered(preset: str, split: str, clips: int) -> Iterator[Video]:
    """Clips of seeds 0 to `clips`; their truth is what moves."""
    for seed in range(clips):
        clip = render_clip(find_preset(preset, events=False, duration_s=CLIP_S), seed, split)
        every = range(len(clip))
        yield Video(f'{preset}-{split}-{seed}', [clip.frame(t) for t in every],
                    [moving_label(clip, t, clip.size) for t in every])


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description='J of the second halves before and after.')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--data', type=Path, help='a DAVIS folder')
    source.add_argument('--clips', type=int, help='as many rendered clips instead')
    parser.add_argument('--preset', choices=sorted(PRESETS), default='video')
    parser.add_argument('--split', choices=SPLITS, default='other')
    parser.add_argument('--sequences', nargs='+', help='default: all')
    parser.add_argument('--model', default='gmos_nano')
    parser.add_argument('--movable-model', default='', help='this one learns, of single pictures')
    parser.add_argument('--steps', type=int, default=SHORT.steps)
    parser.add_argument('--batch', type=int, default=SHORT.batch)
    parser.add_argument('--json', type=Path)
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    config = from_dict({'model': given.model, 'movable_model': given.movable_model, 'threads': 1})
    settings = replace(SHORT, steps=given.steps, batch=given.batch)
    rows = []
    videos = (read_videos(given.data) if given.data
              else rendered(given.preset, given.split, given.clips))
    for video in videos:
        if given.sequences is None or video.name in given.sequences:
            rows.append(one_video(video, config, settings))
            print(rows[-1], flush=True)
            if given.json is not None:
                given.json.write_text(json.dumps(rows, indent=1) + '\n')
    _show(rows, given)


def _show(rows: list[dict[str, object]], given: argparse.Namespace) -> None:
    data = given.data.name if given.data else f'{given.preset}, {given.split}'
    table = Table(title=f'{given.movable_model or given.model}, {data}: J of the second half, '
                        f'{given.steps} steps of {given.batch}')
    for name in ('', 'before', 'after', 'gain', ''):
        table.add_column(name, justify='right')
    for row in rows:
        table.add_row(row['name'], f'{row["before"]:.3f}', f'{row["after"]:.3f}',
                      f'{row["after"] - row["before"]:+.3f}', 'refused' if row['refused'] else '')
    if rows:
        old, new = (float(np.mean([row[key] for row in rows])) for key in ('before', 'after'))
        table.add_row('mean', f'{old:.3f}', f'{new:.3f}', f'{new - old:+.3f}', '')
    Console(width=100).print(table)


if __name__ == '__main__':
    main()
