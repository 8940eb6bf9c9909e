"""Stage 1 of the propagator, or a tracker, on a long stream: milliseconds a frame and memory.

`python -m bench.propagation [--frames 10000] [--sam2 FOLDER | --tracker referring] [--json FILE]`

Textured squares move, stop, hide and come back before a textured ground at 320x240; each frame that
shows one proposes it. Masks go along the flow, or through SAM 2.1's memory where `--sam2` names the
folder of the graphs of `mos import sam2`. Objects without a pixel for 30 frames give their place
back. Memory is the process' resident set.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Frame, Instances
from mos_perception.engine.ort import OrtEngine
from mos_perception.masks import mask_boxes
from mos_perception.motion.backward_flow import BackwardFlow
from mos_perception.propagation import Proposals
from mos_perception.propagation.decisions import PUBLISHED
from mos_perception.propagation.flow_masks import FLOW, FlowPropagator
from mos_perception.propagation.sam2_memory import GRAPHS, Sam2Propagator
from mos_perception.propagation.stage1 import Stage1
from mos_perception.tracking import load_tracker

SIZE = (240, 320)
PERIOD_NS = 33_333_333
RETIRE_AFTER = 30
_MEAN, _STD = (np.float32([[values]]) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3)).astype(np.float32), (0, 0), 2)
    return np.clip(128 + 5 * (noise - 128), 0, 255).astype(np.uint8)


def stream(frames: int, seed: int = 0) -> Iterator[tuple[np.ndarray, Proposals]]:
    """Pictures (240, 320, 3) with what a proposer would say of them."""
    rng = np.random.default_rng(seed)
    ground = _texture(rng, SIZE)
    sides = rng.integers(28, 56, 4)
    squares = [_texture(rng, (side, side)) for side in sides]
    phases = rng.uniform(0, 6, (4, 2))
    for t in range(frames):
        picture, masks = ground.copy(), []
        for n, (side, square) in enumerate(zip(sides, squares)):
            if (t // 150 + n) % 4 == 0:
                continue  # hidden
            there = min(t % 150, 100)  # stands still for a third of the time
            at = 0.5 + 0.45 * np.sin(phases[n] + 0.02 * there)
            y, x = ((np.array(SIZE) - side) * at).astype(int)
            picture[y:y + side, x:x + side] = square
            masks = [mask.copy() for mask in masks]
            for mask in masks:
                mask[y:y + side, x:x + side] = False
            masks.append(np.zeros(SIZE, bool))
            masks[-1][y:y + side, x:x + side] = True
        count = len(masks)
        moves = 0.9 if t % 150 < 100 else 0.1
        yield picture, Proposals(np.array(masks).reshape(count, *SIZE),
                                 np.full(count, moves, np.float32),
                                 np.full(count, 0.9, np.float32))


def resident_mb() -> float:
    """Of this process, from /proc."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith('VmRSS'))


class _FlowMember:
    """A stage whose masks go along the flow."""

    def __init__(self) -> None:
        self.backward, self.flow = BackwardFlow(), None
        self.stage = Stage1(FlowPropagator(lambda frame, step: self.flow, SIZE), FLOW, RETIRE_AFTER)

    def step(self, frame: int, picture: np.ndarray, proposals: Proposals) -> tuple[int, ...]:
        """Ids of the objects."""
        sample = self.backward.of(Frame(frame * PERIOD_NS, picture))
        self.flow = None if sample.flow is None else (sample.flow, sample.flow_error)
        return self.stage.step(frame, proposals).numbers


class TrackerMember:
    """A tracker of the node, by its name."""

    def __init__(self, name: str) -> None:
        self.backward, self.tracker = BackwardFlow(), load_tracker(Config(tracker=name), None)

    def step(self, frame: int, picture: np.ndarray, proposals: Proposals) -> tuple[int, ...]:
        """Ids of the tracks."""
        sample = self.backward.of(Frame(frame * PERIOD_NS, picture))
        masks, count = proposals.masks, len(proposals.masks)
        found = Instances(masks, mask_boxes(masks), proposals.quality, proposals.motion,
                          proposals.motion > 0.5, np.zeros((count, 0), np.float32))
        _, tracks = self.tracker.update(found, sample.stamp_ns, sample.flow, sample.flow_error,
                                        sample.image)
        return tuple(tracks.ids.tolist())


class _Sam2Member:
    """A stage over the graphs of a folder."""

    def __init__(self, folder: Path, threads: int) -> None:
        engines = {name: OrtEngine(folder / f'sam2_{name}.onnx', threads)
                   for name in (*GRAPHS, 'appearance')}
        self.encoder, self.levels = engines['appearance'], {}
        self.side = engines['appearance'].inputs[0].shape[-1]
        self.stage = Stage1(Sam2Propagator(engines, lambda frame: self.levels, SIZE), PUBLISHED,
                            RETIRE_AFTER)

    def step(self, frame: int, picture: np.ndarray, proposals: Proposals) -> tuple[int, ...]:
        """Ids of the objects."""
        square = cv2.resize(picture, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
        image = ((square.astype(np.float32) / 255 - _MEAN) / _STD).transpose(2, 0, 1)[None]
        self.levels = self.encoder.run({'image': np.ascontiguousarray(image)})
        return self.stage.step(frame, proposals).numbers


def measure(member: _FlowMember | _Sam2Member | TrackerMember, frames: int) -> dict[str, Any]:
    """Milliseconds, memory at half and at the end, and what became of the ids."""
    seconds, memory, last, reused = [], [], {}, 0
    for frame, (picture, proposals) in enumerate(stream(frames)):
        begin = time.perf_counter()
        numbers = member.step(frame, picture, proposals)
        seconds.append(time.perf_counter() - begin)
        for number in numbers:  # an id that went never comes back
            reused += number in last and last[number] < frame - 1
            last[number] = frame
        if frame in (frames // 2, frames - 1):
            memory.append(resident_mb())
        if frame % 100 == 99:
            print(f'\r{frame + 1} of {frames} frames', end='', file=sys.stderr)
    print(file=sys.stderr)
    return {'frames': frames, 'ms_p50': round(1e3 * float(np.median(seconds)), 2),
            'ms_p99': round(1e3 * float(np.percentile(seconds, 99)), 2),
            'ids': max(last, default=0), 'ids_reused': reused,
            'resident_mb_half': round(memory[0], 1),
            'resident_mb_end': round(memory[-1], 1),
            'growth_mb': round(memory[-1] - memory[0], 2)}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--frames', type=int, default=10000)
    members = parser.add_mutually_exclusive_group()
    members.add_argument('--sam2', type=Path, metavar='FOLDER', help='graphs of mos import sam2')
    members.add_argument('--tracker', choices=('hungarian', 'referring'), help='of the node')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--json', type=Path, metavar='FILE')
    given = parser.parse_args(arguments)
    name = 'sam2' if given.sam2 else given.tracker or 'flow'
    member = (_Sam2Member(given.sam2, given.threads) if given.sam2 else
              TrackerMember(given.tracker) if given.tracker else _FlowMember())
    result = {'of': name, **measure(member, given.frames)}
    print(json.dumps(result, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
