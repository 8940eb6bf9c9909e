"""AP and AR of tracks with masks, as YouTube-VIS defines them, and by OVIS' levels of occlusion.

Yang et al. 2019, "Video Instance Segmentation": the IoU of two tracks is the sum over the frames of
their masks' intersections by that of their unions; else as COCO: ten thresholds, 101 recalls, mean
over categories. Qi et al. 2021, "Occluded Video Instance Segmentation": objects of other levels are
ignored. Tests hold it against `trackeval`. Legend: G objects and P tracks of a video and category.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco

from mos_perception.masks import coco_codes

THRESHOLDS = np.arange(0.5, 0.96, 0.05)
MOST_TRACKS = 100  # of a video and category
LEVELS = {'light': (0.0, 0.25), 'medium': (0.25, 0.5), 'heavy': (0.5, 1.0)}
"""Of occlusion; a border belongs to both, as in the published evaluation."""
_RECALLS = np.linspace(0, 1, 101)
_EPS = np.finfo(float).eps

Code = dict[str, object]


@dataclass(frozen=True)
class VideoTrack:
    """One object over the frames of a video: the COCO code of its mask in each, None where it is
    not seen; `occlusion` in [0, 1], NaN where nobody says.
    """

    codes: Sequence[Code | None]
    category: int = 1
    score: float = 1.0
    crowd: bool = False
    occlusion: float = float('nan')


def tracks_of(count: int, frames: Iterable[tuple[int, np.ndarray, np.ndarray, np.ndarray]]
              ) -> list[VideoTrack]:
    """The tracks of a video of `count` frames; a track's score is its mean over the frames.

    `frames`: each one's place, masks (N, H, W) bool, ids (N,), 0 = of no track, and scores (N,).
    """
    codes: dict[int, list[Code | None]] = {}
    scores: dict[int, list[float]] = {}
    for place, masks, ids, values in frames:
        size = list(masks.shape[1:])
        for number, code, score in zip(ids.tolist(), coco_codes(masks), values):
            if number:
                codes.setdefault(number, [None] * count)[place] = {'size': size, 'counts': code}
                scores.setdefault(number, []).append(float(score))
    return [VideoTrack(listed, score=float(np.mean(scores[number])))
            for number, listed in codes.items()]


def occlusion_of(frames: Sequence[float]) -> float:
    """OVIS' level of an object from those of its frames: the mean of the higher half; NaN of none.
    """
    ranked = sorted(frames, reverse=True)[:math.ceil(len(frames) / 2)]
    return float(np.mean(ranked)) if ranked else float('nan')


def track_iou(one: VideoTrack, other: VideoTrack) -> float:
    """The IoU of two tracks of one video; 0 where neither is ever seen."""
    common = either = 0
    for a, b in zip(one.codes, other.codes, strict=True):
        areas = [int(coco.area(code)) if code else 0 for code in (a, b)]
        both = int(coco.area(coco.merge([a, b], True))) if all(areas) else 0
        common, either = common + both, either + sum(areas) - both
    return common / either if either else 0.0


@dataclass(frozen=True)
class _Video:
    """One video's tracks of a category, best score first."""

    scores: np.ndarray      # (P,)
    table: np.ndarray       # (P, G) IoU
    crowd: np.ndarray       # (G,) bool
    occlusion: np.ndarray   # (G,)


@dataclass
class VideoAp:
    """AP and AR over any number of videos."""

    _videos: dict[int, list[_Video]] = field(default_factory=dict)

    def add(self, truth: Sequence[VideoTrack], found: Sequence[VideoTrack]) -> None:
        """Take a video's objects and tracks."""
        for category in sorted({track.category for track in (*truth, *found)}):
            objects = [track for track in truth if track.category == category]
            tracks = [track for track in found if track.category == category]
            tracks.sort(key=lambda track: -track.score)
            tracks = tracks[:MOST_TRACKS]
            table = np.array([[track_iou(track, one) for one in objects] for track in tracks])
            self._videos.setdefault(category, []).append(_Video(
                np.array([track.score for track in tracks], np.float64),
                table.reshape(len(tracks), len(objects)),
                np.array([one.crowd for one in objects], bool),
                np.array([one.occlusion for one in objects], np.float64)))

    def scores(self) -> dict[str, float]:
        """AP, AP50, AP75, AR1, AR10 and, where objects have levels, AP_light, AP_medium, AP_heavy.
        NaN where no object counts.
        """
        ap, ar = self._means(MOST_TRACKS), {k: self._means(k)[1] for k in (1, 10)}
        found = {'AP': _mean(ap[0]), 'AP50': _mean(ap[0][:, :1]), 'AP75': _mean(ap[0][:, 5:6]),
                 'AR1': _mean(ar[1]), 'AR10': _mean(ar[10])}
        if any(np.isfinite(video.occlusion).any() for videos in self._videos.values()
               for video in videos):
            for name, bounds in LEVELS.items():
                found[f'AP_{name}'] = _mean(self._means(MOST_TRACKS, bounds)[0])
        return found

    def _means(self, most: int, levels: tuple[float, float] | None = None
               ) -> tuple[np.ndarray, np.ndarray]:
        """(K, 10) AP and recall of the categories that have objects, within `levels` of occlusion.
        """
        rows = [row for videos in self._videos.values()
                if (row := _category(videos, most, levels)) is not None]
        table = np.array(rows).reshape(-1, 2, len(THRESHOLDS))
        return table[:, 0], table[:, 1]


def _mean(table: np.ndarray) -> float:
    return float(table.mean()) if table.size else float('nan')


def _category(videos: list[_Video], most: int,
              levels: tuple[float, float] | None) -> np.ndarray | None:
    """(2, 10) AP and recall of one category; None without an object that counts."""
    hits, left_out, scores, objects = [], [], [], 0
    for video in videos:
        ignored = video.crowd.copy()
        if levels is not None:
            ignored |= ~((video.occlusion >= levels[0]) & (video.occlusion <= levels[1]))
        objects += int((~ignored).sum())
        hit, out = _matches(video.table, ignored)
        hits.append(hit[:, :most])
        left_out.append(out[:, :most])
        scores.append(video.scores[:most])
    if not objects:
        return None
    order = np.argsort(-np.concatenate(scores), kind='stable')
    hit, out = (np.concatenate(parts, 1)[:, order] for parts in (hits, left_out))
    return np.array([_curve(one & ~away, ~one & ~away, objects)
                     for one, away in zip(hit, out)]).T


def _matches(table: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(10, P) whether each track has an object, and whether that is one to ignore. The best track
    takes first; it takes an ignored object only where no other is left.
    """
    tracks, count = table.shape
    hit, out = (np.zeros((len(THRESHOLDS), tracks), bool) for _ in range(2))
    for at, threshold in enumerate(THRESHOLDS):
        free = np.ones(count, bool)
        for track in range(tracks):
            fits = free & (table[track] >= min(threshold, 1 - 1e-10) - _EPS)
            rows = np.flatnonzero(fits & ~ignored)
            if not len(rows):
                rows = np.flatnonzero(fits)
            if len(rows):
                # of equal ones the last, as the published evaluation goes on at "equal or better"
                best = rows[len(rows) - 1 - int(np.argmax(table[track, rows][::-1]))]
                hit[at, track], out[at, track], free[best] = True, ignored[best], False
    return hit, out


def _curve(hit: np.ndarray, alarm: np.ndarray, objects: int) -> tuple[float, float]:
    """AP and the last recall of tracks in the order of their scores."""
    hits, alarms = np.cumsum(hit, dtype=float), np.cumsum(alarm, dtype=float)
    recall = hits / objects
    precision = hits / (hits + alarms + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, _RECALLS, side='left')
    return float(np.append(precision, 0.0)[places].mean()), float(recall[-1]) if len(hit) else 0.0
