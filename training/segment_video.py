"""A segmenter's own answer to VIS, VPS and VSS: `python -m training.segment_video --run RUN --data
LABELLED --out FOUND`, then `python -m training.evaluate --task vis | vps | vss`.

Every frame by itself; things are linked by the trackers of the robot, on queries, masks and flow
(`--tracker referring` with a `--tracker-model` for queries of this size, `--refiner` behind it). A
track's class is that of its mean probabilities, its score their largest.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from mos_perception.config import Config
from mos_perception.datatypes import Frame
from mos_perception.engine.model_files import find_model
from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import ConfigError
from mos_perception.evaluation.video_ap import VideoTrack
from mos_perception.evaluation.video_files import read_videos
from mos_perception.evaluation.video_metrics import Panoptic
from mos_perception.evaluation.video_writing import FoundFolder, codes_of
from mos_perception.formats import ytvis
from mos_perception.formats.sequence import Sequence
from mos_perception.motion.backward_flow import BackwardFlow
from mos_perception.tracking import Tracker, load_tracker
from mos_perception.tracking.referring import ReferringTracker
from mos_perception.tracking.refiner import NamedWindows, load_refiner
from mos_perception.tracking.tracker_card import load_tracker_card
from training.command import command
from training.frame_segments import SCORE, FrameSegments, load_segmenter, read_frame
from training.nets.mask2former import Segmenter


def make_tracker(name: str, model: str, score: float, channels: int) -> Tracker:
    """A tracker of the robot for queries of `channels`; what is seen once is a track, and nothing
    is shown that is not seen. Raises EngineError.
    """
    config = Config(tracker=name, tracker_model=model, track_birth_score=score, track_confirm_s=0.0,
                    track_hold_s=0.0)
    if name != 'referring':
        return load_tracker(config)
    path = find_model(model, 'trackers')
    return ReferringTracker(config, OrtEngine(path, threads=1), load_tracker_card(path), channels)


def linked(tracker: Tracker, refiner: str, sequence: Sequence,
           found: list[FrameSegments]) -> list[np.ndarray]:
    """For each frame (N,) the track of each thing, 0 = none. `refiner`: a name or path, '' = none.
    """
    tracker.reset()
    windows, backward = None, BackwardFlow()
    if refiner:
        windows = NamedWindows(load_refiner(refiner, tracker.card))
    ids, refined = [], []
    for stamp, frame, segments in zip(sequence.stamps_ns.tolist(), sequence.frames, found):
        sample = backward.of(Frame(stamp, frame))
        shown, tracks = tracker.update(segments.things, stamp, sample.flow, sample.flow_error,
                                       frame)
        ids.append(tracks.instance_ids(len(shown))[:len(segments.things)])
        if windows is not None:
            refined += windows.push(tracker.tracked)
    if windows is None:
        return ids
    return [row.track for row in refined + windows.flush()]


def answer(found: list[FrameSegments],
           ids: list[np.ndarray]) -> tuple[list[VideoTrack], Panoptic, np.ndarray]:
    """Tracks, panoptic maps and classes (T, H, W) of a video."""
    classes = np.stack([frame.stuff for frame in found])
    segments = np.zeros_like(classes)
    tracks = []
    for number in np.unique(np.concatenate(ids)).tolist():
        if not number:
            continue
        rows = [np.flatnonzero(names == number) for names in ids]
        share = np.concatenate([frame.shares[row] for frame, row in zip(found, rows)]).mean(0)
        masks = np.stack([frame.things.masks[row].any(0) for frame, row in zip(found, rows)])
        tracks.append(VideoTrack(codes_of(masks), int(share.argmax()) + 1, float(share.max())))
        classes[masks], segments[masks] = share.argmax(), number
    return tracks, Panoptic(classes, segments), np.stack([frame.semantic for frame in found])


def segment_folder(network: Segmenter, tracker: Tracker, refiner: str, data: Path, out: Path,
                   score: float) -> None:
    """All videos of a folder of labelled video into `out`."""
    file, folder = data / 'instances.json', FoundFolder(out)
    names = {name.split('/')[-1]: name for name in ytvis.videos(file)}
    for video in track(read_videos(file), str(data), console=Console(stderr=True)):
        sequence = ytvis.read(file, names[video.name])
        found = [read_frame(network, frame, score) for frame in sequence.frames]
        ids = linked(tracker, refiner, sequence, found)
        folder.add(video.number, video.name, *answer(found, ids))
    folder.save()


@command('segment_video')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description='Write what a segmenter finds in labelled video.')
    parser.add_argument('--run', type=Path, required=True, help='of training.train_segmenter')
    parser.add_argument('--data', type=Path, required=True, help='of training.labelled_clips')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--score', type=float, default=SCORE, help='least of a segment')
    parser.add_argument('--tracker', choices=('hungarian', 'referring'), default='hungarian')
    parser.add_argument('--tracker-model', default=Config().tracker_model,
                        help='with referring: a name under models/trackers/ or a path')
    parser.add_argument('--refiner', default='', help='with referring: likewise')
    parser.add_argument('--threads', type=int, default=1)
    given = parser.parse_args(arguments)
    if given.refiner and given.tracker != 'referring':
        raise ConfigError('--refiner needs --tracker referring')
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    network = load_segmenter(given.run)
    tracker = make_tracker(given.tracker, given.tracker_model, given.score,
                           network.config.channels)
    segment_folder(network, tracker, given.refiner, given.data, given.out, given.score)
    return 0


if __name__ == '__main__':
    sys.exit(main())
