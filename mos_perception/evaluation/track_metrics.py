"""HOTA, IDF1 and CLEAR MOTA of tracks, for any similarity of boxes or masks.

HOTA: Luiten et al. 2021, "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking". IDF1:
Ristani et al. 2016. MOTA: Bernardin and Stiefelhagen 2008. Tests hold them against `trackeval`.
Legend: F frames, G objects, P tracks of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.optimize import linear_sum_assignment

ALPHAS = np.arange(1, 20) * 0.05
"""Localisation thresholds that HOTA is a mean over."""
MATCHED = 0.5  # similarity of IDF1 and MOTA
_EPS = np.finfo(float).eps

TrackFrame = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Object ids (G,), track ids (P,), each without repeats, and their similarity (G, P) in [0, 1]."""


@dataclass(frozen=True)
class TrackCounts:
    """Counts of one or more sequences; added up, they are those of all of them.

    `hits`, `misses`, `alarms` and `association` (the sum of A(c) over the hits c) are (19,), by
    `ALPHAS`.
    """

    hits: np.ndarray
    misses: np.ndarray
    alarms: np.ndarray
    association: np.ndarray
    same: int
    """Frames in which an object has the one track that is its own (IDTP)."""
    objects: int
    """Objects, summed over the frames."""
    tracks: int
    """Tracks, summed over the frames."""
    matched: int
    """Matches of the CLEAR metrics."""
    switches: int
    """Matches with another track than the object's last one."""

    def __add__(self, other: TrackCounts) -> TrackCounts:
        return TrackCounts(*(getattr(self, part.name) + getattr(other, part.name)
                             for part in fields(self)))

    def scores(self) -> dict[str, float]:
        """HOTA, DetA, AssA, IDF1, MOTA, and the number of switches. 0 where there is nothing."""
        detection = self.hits / np.maximum(1, self.hits + self.misses + self.alarms)
        association = self.association / np.maximum(1, self.hits)
        missed, alarms = self.objects - self.matched, self.tracks - self.matched
        return {'HOTA': float(np.sqrt(detection * association).mean()),
                'DetA': float(detection.mean()), 'AssA': float(association.mean()),
                'IDF1': 2 * self.same / max(1, self.objects + self.tracks),
                'MOTA': 1 - (missed + alarms + self.switches) / max(1, self.objects),
                'switches': self.switches}


def count_tracks(frames: list[TrackFrame]) -> TrackCounts:
    """The counts of one sequence."""
    named = _numbered(frames)
    objects, tracks = (np.bincount(np.concatenate([frame[side] for frame in named] or [[]])
                                   .astype(np.int64)) for side in (0, 1))
    hits, association = _hota(named, objects, tracks)
    same = np.zeros((len(objects), len(tracks)))
    for gt, found, table in named:
        same[np.ix_(gt, found)] += table >= MATCHED - _EPS
    rows, columns = linear_sum_assignment(same, maximize=True)
    total, shown = int(objects.sum()), int(tracks.sum())
    return TrackCounts(hits, total - hits, shown - hits, association,
                       int(same[rows, columns].sum()), total, shown, *_clear(named, len(objects)))


def _numbered(frames: list[TrackFrame]) -> list[TrackFrame]:
    """Ids as places in the sorted list of all."""
    names = [np.unique(np.concatenate([frame[side] for frame in frames] or [[]]))
             for side in (0, 1)]
    return [(np.searchsorted(names[0], gt), np.searchsorted(names[1], found),
             np.asarray(table, np.float64).reshape(len(gt), len(found)))
            for gt, found, table in frames]


def _hota(frames: list[TrackFrame], objects: np.ndarray,
          tracks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits and summed association (19,). Matches maximise similarity times how well the two tracks
    fit over the whole sequence (section 5 of the paper, as its authors compute it).
    """
    together = np.zeros((len(objects), len(tracks)))
    for gt, found, table in frames:
        either = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
        together[np.ix_(gt, found)] += np.divide(table, either, where=either > _EPS,
                                                 out=np.zeros_like(table))
    all_frames = objects[:, None] + tracks[None]
    aligned = together / (all_frames - together)
    matches = np.zeros((len(ALPHAS), *together.shape))
    for gt, found, table in frames:
        rows, columns = linear_sum_assignment(aligned[np.ix_(gt, found)] * table, maximize=True)
        good = table[rows, columns] >= ALPHAS[:, None] - _EPS
        matches[:, gt[rows], found[columns]] += good
    share = matches / np.maximum(1, all_frames - matches)
    return matches.sum((1, 2)), (matches * share).sum((1, 2))


def _clear(frames: list[TrackFrame], count: int) -> tuple[int, int]:
    """(matches, switches): a match of the frame before is kept where it is still one."""
    last = np.full(count, -1)    # track of the object's last match
    before = np.full(count, -1)  # of the frame before
    matched = switches = 0
    for gt, found, table in frames:
        if not len(gt) or not len(found):
            continue
        score = 1000.0 * (before[gt][:, None] == found[None]) + table
        score[table < MATCHED - _EPS] = 0
        rows, columns = linear_sum_assignment(score, maximize=True)
        good = score[rows, columns] > _EPS
        gt, found = gt[rows[good]], found[columns[good]]
        matched += len(gt)
        switches += int(((last[gt] >= 0) & (last[gt] != found)).sum())
        last[gt] = found
        before[:] = -1
        before[gt] = found
    return matched, switches
