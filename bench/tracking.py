"""How well tracks outlive a stop: rendered clips in which objects pause, a camera that moves.

    python -m bench.tracking [--preset video] [--clips 20] [--missed 0.1] [--json]

The detector is the truth: the masks of the objects that move now, of which a share `--missed` is
left out at random. So what is measured is the tracker alone: with the flow and with holding, and as
it is without both (constant velocity). A stop is an object that moved, rests for 1.5 s at most and
moves again, visible all the time. `kept` is the share of stops after which it has the id it had
before; `held` the share of the frames of all rests (up to 1.5 s) that show it with this id;
`held_iou` the mean mask IoU of those; `false_holds` held instances per clip and second that cover
no object at IoU 0.3; `switches` CLEAR-MOT identity switches per object that ever moves. A first id
counts there as one, as in the scores of a run; `switches` leaves it out.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator

import numpy as np

from bench.report import Report, parsed
from mos_perception.config import Config
from mos_perception.datatypes import Instances, Tracks
from mos_perception.evaluation.metrics import IdSwitches, match, overlaps
from mos_perception.masks import mask_boxes
from mos_perception.motion.backward_flow import BackwardFlow
from mos_perception.tracking import load_tracker
from training.scenes import render_clip
from training.scenes.clip import Clip
from training.scenes.presets import PRESETS, find_preset

DURATION_S = 4.0    # pauses last .2 to .35 of it
LONGEST_STOP_S = 1.5
LEAST_PIXELS = 40   # smaller objects are neither found nor scored
LEAST_IOU = 0.5
NOTHING_IOU = 0.3
BARS = {'kept': 0.9}


def truth(clip: Clip, index: int) -> Instances:
    """What a perfect detector says of frame `index`: the masks of what moves."""
    masks, _ = clip.moving_masks(index, LEAST_PIXELS)
    ones = np.ones(len(masks), np.float32)
    return Instances(masks, mask_boxes(masks), ones, ones, ones.astype(bool),
                     np.zeros((len(masks), 0), np.float32))


def tracked(clip: Clip, flows: bool, missed: float) -> Iterator[tuple[Instances, Tracks]]:
    """The tracker's answers, frame by frame; `missed` is the share of masks left out."""
    tracker = load_tracker(Config() if flows else Config(track_hold_s=0.0))
    backward, rng = BackwardFlow(), np.random.default_rng(clip.seed)
    for index in range(len(clip)):
        frame, found = clip.frame(index), truth(clip, index)
        kept = rng.random(len(found)) >= missed
        found = found.of(kept)
        flow, error = None, None
        if flows:
            sample = backward.of(frame)
            flow, error = sample.flow, sample.flow_error
        yield tracker.update(found, frame.stamp_ns, flow, error)


def rests(clip: Clip) -> Iterator[tuple[int, int, int]]:
    """(object, its first frame at rest, the frame in which it moves again; the number of frames
    where it does not) of each rest after a motion, visible all the time.
    """
    visible = np.stack([np.bincount(ids.ravel(), minlength=clip.moving.shape[1]) >= LEAST_PIXELS
                        for ids in clip.ids])
    for name in range(1, clip.moving.shape[1]):
        moving = clip.moving[:, name]
        starts = np.flatnonzero(moving[:-1] & ~moving[1:]) + 1
        for start in starts.tolist():
            later = np.flatnonzero(moving[start:])
            end = start + int(later[0]) if len(later) else len(clip)
            if moving[:start].sum() >= 6 and visible[start - 6:end + 1, name].all():
                yield name, start, end


def names_of_objects(clip: Clip, index: int, found: Instances,
                     tracks: Tracks) -> dict[int, tuple[int, float]]:
    """object -> (track id, IoU) of the instance that shows it in frame `index`."""
    ids = tracks.instance_ids(len(found))
    rows = np.flatnonzero(ids > 0)
    shown = np.zeros(found.size, np.uint16)
    for number, row in enumerate(rows, 1):
        shown[found.masks[row]] = number
    counts = overlaps(clip.ids[index], shown)
    return {int(counts.gt_ids[g]): (int(ids[rows[counts.pred_ids[p] - 1]]), float(counts.iou[g, p]))
            for g, p in match(counts.iou, LEAST_IOU)}


def score(clip: Clip, answers: list[tuple[Instances, Tracks]]) -> Counter[str]:
    """Sums over one clip."""
    names = [names_of_objects(clip, index, *answer) for index, answer in enumerate(answers)]
    sums: Counter[str] = Counter(seconds=len(clip) / clip_fps(clip))
    for name, start, end in rests(clip):
        limit = start + round(LONGEST_STOP_S * clip_fps(clip))
        before = next((names[at][name][0] for at in range(start - 1, start - 7, -1)
                       if name in names[at]), -1)
        if end < len(clip) and end <= limit:
            after = next((names[at][name][0] for at in range(end, min(end + 6, len(clip)))
                          if name in names[at] and clip.moving[at, name]), -2)
            sums['stops'] += 1
            sums['kept'] += before == after
        for at in range(start, min(end, limit)):
            number, iou = names[at].get(name, (-3, 0.0))
            sums['rest_frames'] += 1
            sums['held'] += number == before
            sums['iou'] += iou if number == before else 0.0
    for index, (found, _) in enumerate(answers):
        for mask in found.masks[~found.moving]:
            sums['false_holds'] += covers_nothing(clip.ids[index], mask)
    return sums + switches(clip, answers)


def switches(clip: Clip, answers: list[tuple[Instances, Tracks]]) -> Counter[str]:
    """Identity switches after the first id, over the objects that move now."""
    counter, named = IdSwitches(), set()
    for index, (found, tracks) in enumerate(answers):
        rows = np.flatnonzero(found.moving)
        _, numbers = clip.moving_masks(index, LEAST_PIXELS)
        shown = np.zeros(found.size, np.uint16)
        for number, row in enumerate(rows, 1):
            shown[found.masks[row]] = number
        counts = overlaps(np.where(np.isin(clip.ids[index], numbers), clip.ids[index], 0), shown)
        ids = tracks.instance_ids(len(found))[rows][counts.pred_ids - 1]
        counter.add(counts.gt_ids, ids, counts.iou)
        named |= set(numbers.tolist())
    return Counter(objects=len(named), switches=counter.switches - counter.named)


def covers_nothing(ids: np.ndarray, mask: np.ndarray) -> bool:
    """Whether no object has IoU 0.3 with the mask."""
    area, common = np.bincount(ids.ravel()), np.bincount(ids[mask])
    union = area[:len(common)] + np.count_nonzero(mask) - common
    return not (common[1:] >= NOTHING_IOU * union[1:]).any()


def clip_fps(clip: Clip) -> float:
    """Frames per second."""
    return 1e9 / clip.period_ns


def main(arguments: list[str] | None = None) -> None:
    """Render, track both ways, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--preset', default='video', choices=sorted(PRESETS))
    parser.add_argument('--clips', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--missed', type=float, default=0.0, help='share of masks left out')
    parser.add_argument('--json', action='store_true', help='print JSON alone')
    options = parsed(parser, arguments)
    preset = find_preset(options.preset, duration_s=DURATION_S, start_stop=1.0, empty=0.0,
                         static_camera=0.0, moving_objects=(2, 4), events=False)
    ways = {'flow': True, 'constant velocity': False}
    totals: dict[str, Counter[str]] = {way: Counter() for way in ways}
    for seed in range(options.seed, options.seed + options.clips):
        clip = render_clip(preset, seed, 'test')
        for way, flows in ways.items():
            totals[way] += score(clip, list(tracked(clip, flows, options.missed)))
    report(options, {way: ratios(sums) for way, sums in totals.items()})


def ratios(sums: Counter[str]) -> dict[str, float]:
    """The figures of one way."""
    return {'stops': sums['stops'], 'kept': sums['kept'] / max(1, sums['stops']),
            'held': sums['held'] / max(1, sums['rest_frames']),
            'held_iou': sums['iou'] / max(1, sums['held']),
            'false_holds': sums['false_holds'] / max(1e-9, sums['seconds']),
            'objects': sums['objects'], 'switches': sums['switches'] / max(1, sums['objects'])}


def report(options: argparse.Namespace, found: dict[str, dict[str, float]]) -> None:
    """Print as JSON, or as a table beside the tracker without flow."""
    given = {'preset': options.preset, 'clips': options.clips, 'seed': options.seed,
             'missed': options.missed}
    if options.json:
        print(json.dumps({**given, **found}, indent=1))
        return
    table = Report('tracking', f'tracks through stops, {options.clips} clips of {options.preset}')
    for name, value in found['flow'].items():
        bar = BARS.get(name)
        table.row(name, value, '', {'constant velocity': found['constant velocity'][name]},
                  f'>= {bar:g}' if bar else '', None if bar is None else value >= bar)
    table.finish(options)


if __name__ == '__main__':
    main()
