"""Score runs on pairs of frames: AP of masks and boxes from single frames, or the flow's error.

`python -m training.evaluate_mosis --runs runs/mosis/* --data runs/mosis2d/test --val
runs/mosis2d/val --pictures out/mosis.jpg` prints one table; runs of one recipe, as of several
seeds, are one row. Runs of `training.train_video --movable` on caches of `training.cold_start` are
rows by the name of their folder without its number. The protocol is that of the MoSIS thesis' table
2 (COCO AP, no class), but with detections of every score; `--least-score 0.4` is the thesis' cut
(its 3.8).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.document import table
from mos_perception.errors import ConfigError
from mos_perception.evaluation.metrics import MaskAp
from mos_perception.masks import mask_boxes
from mos_perception.models.gmos.postprocess import to_instances
from mos_perception.reports.visualize import contact_sheet, tinted, write_image
from training.cold_start import SCALE
from training.command import command
from training.datasets.frame_pairs import PairBatch, PairSet
from training.min_cut import instances_at_edges
from training.nets.amd import Amd
from training.nets.boxes import corners_of
from training.nets.gmos_nano import GmosNano
from training.nets.mosis import Mosis
from training.nets.pwc_lite import PwcLite
from training.nets.yolo import Yolo
from training.recipes_mosis import MOSIS_RECIPES, MosisRecipe
from training.state import load, read_metadata
from training.video_batches import MEAN, STD
from training.video_run import STATE as VIDEO_STATE
from training.video_run import load_run

COLUMNS = ('mask AP50', 'mask AP75', 'mask mAP', 'box AP50', 'box AP75', 'box mAP',
           'refit box mAP')
PAPER = {'mosis_supervised': (0.875, 0.274, 0.391, 0.866, 0.551, 0.491, None),
         'mosis': (0.556, 0.005, 0.149, 0.611, 0.104, 0.229, None),
         'amd': (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, None)}
_LEAST_AREA = 16  # px, of a component of AMD's and of any answer
_MASK = 0.5


@dataclass(frozen=True)
class Found:
    """What was found in one image, N objects."""

    masks: np.ndarray
    """(N, H, W) bool, none empty."""
    scores: np.ndarray
    """(N,) in [0, 1]."""
    boxes: np.ndarray
    """(N, 4) px corners as the detector gives them."""


Finder = Callable[[Tensor], list[Found]]
"""Images (B, 3, H, W) -> what is in each."""
Results = dict[str, list[dict[str, float]]]
"""Per recipe the columns of each of its runs."""


def detector_finder(detector: Yolo, nms_iou: float, least_score: float, top_k: int = 32) -> Finder:
    """The detector as the thesis runs it (3.8): a mask is where its own probability is over 0.5."""
    def find(images: Tensor) -> list[Found]:
        size = tuple(images.shape[2:])
        answers = detector.detect(detector(images), top_k, nms_iou)
        masks, scores = answers.masks(size) > _MASK, answers.logits.sigmoid()
        corners = corners_of(answers.boxes).clamp(min=0)
        corners = torch.minimum(corners, corners.new_tensor([*size[::-1], *size[::-1]]))
        kept = (masks.sum((2, 3)) >= _LEAST_AREA) & (scores >= least_score)
        kept &= answers.logits.isfinite()
        return [Found(masks[n, keep].numpy(), scores[n, keep].numpy(), corners[n, keep].numpy())
                for n, keep in enumerate(kept)]
    return find


def region_finder(network: Amd, channel: int, least_score: float) -> Finder:
    """AMD's regions as instances: the components of one channel over 0.5, their mean as score."""
    def find(images: Tensor) -> list[Found]:
        answers = []
        for region in network.segmenter(images)[:, channel].numpy():
            count, labels, stats, _ = cv2.connectedComponentsWithStats(
                (region > _MASK).astype(np.uint8))
            large = [n for n in range(1, count) if stats[n, cv2.CC_STAT_AREA] >= _LEAST_AREA]
            masks = labels[None] == np.array(large, int)[:, None, None]
            scores = np.array([region[mask].mean() for mask in masks], np.float32)
            masks, scores = masks[scores >= least_score], scores[scores >= least_score]
            answers.append(Found(masks, scores, mask_boxes(masks)))
        return answers
    return find


def picture_finder(network: GmosNano, least_score: float, cut: bool = False) -> Finder:
    """A light network of single pictures, as the robot runs it; `cut`: with outlines by a minimum
    cut instead, which takes longer.
    """
    def find(images: Tensor) -> list[Found]:
        size = tuple(images.shape[2:])
        large = functional.interpolate(images, scale_factor=float(SCALE), mode='bicubic')
        large = large.clamp(0, 1)
        seen = (large - MEAN[0]) / STD[0]
        answers = network(seen)
        found = []
        for row in range(len(images)):
            one = {name: value[row:row + 1].numpy() for name, value in answers.items()}
            edges = None if cut else seen[row].numpy()
            objects = to_instances(one, size, least_score, 32, edges)
            masks, boxes = objects.masks, objects.boxes
            if cut and len(masks):
                odds = cv2.resize(np.squeeze(one['foreground_logits']), size[::-1])
                masks = instances_at_edges(masks, odds, 255 * images[row].permute(1, 2, 0).numpy())
                boxes = mask_boxes(masks)
            found.append(Found(masks, objects.scores, boxes))
        return found
    return find


def batches(data: PairSet, count: int = 16) -> Iterator[PairBatch]:
    """Every pair of a set once."""
    places = np.array([(video, t) for video in range(data.videos) for t in range(data.pairs)])
    for begin in range(0, len(places), count):
        yield data.batch(places[begin:begin + count])


def average_precision(find: Finder, data: PairSet) -> dict[str, float]:
    """The columns of the table over every frame of a set that has a next one."""
    as_said, refit = MaskAp(), MaskAp()
    for batch in batches(data):
        for found, masks in zip(find(batch.first), batch.masks):
            truth = list(masks.numpy())
            as_said.add(truth, list(found.masks), found.scores, found.boxes)
            refit.add(truth, list(found.masks), found.scores)
    mask, box = as_said.values(), as_said.values('bbox')
    if mask is None or box is None:
        raise ConfigError('the set holds no object: there is nothing to score')
    values = (*mask[1:], mask[0], *box[1:], box[0], refit.values('bbox')[0])
    return dict(zip(COLUMNS, values))


def flow_error(network: PwcLite, data: PairSet) -> dict[str, float]:
    """Mean squared error per component, px^2, over all pixels; and that of a flow of zero."""
    sums = np.zeros(3)
    for batch in batches(data):
        squares = (network(batch.first, batch.second) - batch.flow).square()
        sums += float(squares.sum()), float(batch.flow.square().sum()), squares.numel()
    return {'flow MSE px^2': sums[0] / sums[2], 'of zero flow': sums[1] / sums[2]}


@torch.inference_mode()
def best_channel(network: Amd, val: PairSet) -> int:
    """The channel with the highest mask AP50 on `val`: the thesis' human step."""
    scores = [average_precision(region_finder(network, channel, 0.0), val)[COLUMNS[0]]
              for channel in range(network.config.regions)]
    return int(np.argmax(scores))


def load_network(folder: Path) -> tuple[nn.Module, MosisRecipe]:
    """The network of a run, in evaluation mode. Raises ConfigError for a run of another kind."""
    if (folder / VIDEO_STATE).exists():
        network, _ = load_run(folder)
        if network.geometry is not None:
            raise ConfigError(f'{folder} is a run on motion evidence: give one made with --movable')
        return network, replace(MOSIS_RECIPES['mosis_nano'], name=folder.name.rstrip('_0123456789'))
    trained = read_metadata(folder, 'give folders of runs')['recipe']
    name = trained['name']
    if name not in MOSIS_RECIPES:
        raise ConfigError(f'{folder} is a run of {name}: choose runs of '
                          f'{", ".join(MOSIS_RECIPES)}')
    recipe = replace(MOSIS_RECIPES[name], seed=trained['seed'],
                     learning_rate=trained['learning_rate'])
    return load(folder, recipe).network.eval(), recipe


def finder(network: nn.Module, val: PairSet | None, nms_iou: float, least_score: float,
           cut: bool = False) -> Finder:
    """How a network's answer becomes instances. Raises ConfigError: AMD without `val`."""
    if isinstance(network, Amd):
        if val is None:
            raise ConfigError('AMD\'s channel is chosen on a set of its own: give --val')
        return region_finder(network, best_channel(network, val), least_score)
    if isinstance(network, GmosNano):
        return picture_finder(network, least_score, cut)
    detector = network.detector if isinstance(network, Mosis) else network
    return detector_finder(detector, nms_iou, least_score)


@torch.inference_mode()
def score(network: nn.Module, data: PairSet, val: PairSet | None, nms_iou: float = 0.5,
          least_score: float = 0.0, cut: bool = False) -> dict[str, float]:
    """The columns of a network in evaluation mode."""
    if isinstance(network, PwcLite):
        return flow_error(network, data)
    return average_precision(finder(network, val, nms_iou, least_score, cut), data)


@torch.inference_mode()
def picture(find: Finder, images: Tensor) -> list[np.ndarray]:
    """Each of (B, 3, H, W) with what is found in it, (H, W, 3) uint8."""
    return [tinted(level, found.masks) for level, found in zip(_levels(images), find(images))]


def _levels(images: Tensor) -> np.ndarray:
    """(B, H, W, 3) uint8."""
    return (255 * images).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def evaluate_runs(runs: list[Path], data: Path, val: Path | None, nms_iou: float = 0.5,
                  least_score: float = 0.0, cut: bool = False) -> Results:
    """The scores of folders of runs on the set `data`. Raises ConfigError, DatasetError."""
    results: Results = {}
    for folder in runs:
        network, recipe = load_network(folder)
        values = score(network, PairSet(data, recipe), val and PairSet(val, recipe), nms_iou,
                       least_score, cut)
        results.setdefault(recipe.name, []).append(values)
    return results


def sheet(runs: list[Path], data: Path, val: Path | None, columns: int = 6,
          least_score: float = 0.4, cut: bool = False) -> np.ndarray:
    """The first frames of `columns` videos: the truth, and what one run of each recipe finds."""
    rows: dict[str, list[np.ndarray]] = {}
    for folder in runs:
        network, recipe = load_network(folder)
        if recipe.name in rows or isinstance(network, PwcLite):
            continue
        frames = PairSet(data, recipe)
        batch = frames.batch(np.array([(v, 0) for v in range(min(columns, frames.videos))]))
        rows.setdefault('truth', [tinted(image, masks.numpy()) for image, masks in zip(
            _levels(batch.first), batch.masks)])
        find = finder(network, val and PairSet(val, recipe), 0.5, least_score, cut)
        rows[recipe.name] = picture(find, batch.first)
    titles = [name for name, row in rows.items() for _ in row]
    return contact_sheet([image for row in rows.values() for image in row],
                         len(next(iter(rows.values()), [0])), titles, 192)


def as_markdown(results: Results) -> str:
    """Mean and, of several runs, standard deviation; the thesis' figures beside them."""
    parts = []
    for columns in dict.fromkeys(tuple(runs[0]) for runs in results.values()):
        rows = []
        for name, runs in results.items():
            if tuple(runs[0]) != columns:
                continue
            values = np.array([[run[column] for column in columns] for run in runs])
            cells = [f'{mean:.3f}' + (f' +- {spread:.3f}' if len(runs) > 1 else '')
                     for mean, spread in zip(values.mean(0), values.std(0))]
            rows.append([name, *cells, str(len(runs))])
        if columns == COLUMNS:
            rows += [[f'thesis: {name}', *('-' if value is None else f'{value:.3f}'
                                           for value in values), '1']
                     for name, values in PAPER.items()]
        parts.append(table(['', *columns, 'seeds'], rows))
    return '\n'.join(parts)


@command('evaluate_mosis')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option('--runs', type=Path, nargs='+', required=True, help='folders of training.train')
    option('--data', type=Path, required=True, help='set of training.datasets.frame_pairs')
    option('--val', type=Path, help='another, on which AMD\'s channel is chosen')
    option('--nms-iou', type=float, default=0.5, help='thesis: 0.1')
    option('--least-score', type=float, default=0.0, help='thesis: 0.4')
    option('--cut', action='store_true',
           help='outlines of light networks by minimum cuts in the picture')
    option('--pictures', type=Path, help='where a sheet of the first frames goes')
    option('--picture-score', type=float, default=0.4, help='least score that is drawn')
    option('--columns', type=int, default=6, help='frames of the sheet')
    option('--json', action='store_true', help='print JSON instead of the table')
    option('--threads', type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    results = evaluate_runs(args.runs, args.data, args.val, args.nms_iou, args.least_score,
                            args.cut)
    if args.pictures:
        write_image(args.pictures, sheet(args.runs, args.data, args.val, args.columns,
                                         args.picture_score, args.cut))
    print(json.dumps(results, indent=1) if args.json else as_markdown(results))
    return 0


if __name__ == '__main__':
    sys.exit(main())
