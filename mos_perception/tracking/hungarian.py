"""Association by mask IoU and embedding cosine, solved as one assignment.

similarity = (1 - w) x overlap + w x max(0, cosine). A track's mask is moved at constant velocity before it is
compared. Pairs need IoU >= `track_min_iou`; tracks that are lost, or too young to have a velocity, may
also match by nearness: a small fast object need not overlap itself one frame later.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from mos_perception.config import Config
from mos_perception.datatypes import Instances, Tracks, TrackState
from mos_perception.tracking.lifecycle import Track, TrackStore, crop

MAX_AREA_RATIO = 3.0  # a near instance of a much different size is another object


class HungarianTracker:
    """Tracks by overlap and looks."""

    def __init__(self, config: Config) -> None:
        self.store = TrackStore(config)
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take new `track_*` values; living tracks stay."""
        self.store.configure(config)
        self.min_iou, self.weight = config.track_min_iou, config.track_embedding_weight

    def update(self, instances: Instances, stamp_ns: int) -> Tracks:
        """The tracks after this frame. Raises SyncError if `stamp_ns` is before the last one."""
        tracks = self.store.advance(stamp_ns)
        matches = assign(similarity(tracks, instances, stamp_ns, self.min_iou, self.weight))
        return self.store.apply(matches, instances)

    def reset(self) -> None:
        """Forget everything; ids start at 1 again (a new epoch)."""
        self.store.reset()


def assign(similarity_mn: np.ndarray) -> list[tuple[int, int]]:
    """The pairs (track row, instance row) of greatest summed similarity; -inf marks a forbidden pair."""
    allowed = np.isfinite(similarity_mn)
    rows, columns = linear_sum_assignment(np.where(allowed, similarity_mn, -1e-6), maximize=True)
    return [(int(m), int(n)) for m, n in zip(rows, columns) if allowed[m, n]]


def similarity(tracks: list[Track], instances: Instances, stamp_ns: int, min_iou: float, weight: float) -> np.ndarray:
    """(M, N) in [0, 1], -inf where the pair is impossible."""
    cosine = _cosine([track.embedding for track in tracks], instances.embeddings)
    crops = [crop(instances, n) for n in range(len(instances))]
    table = np.full((len(tracks), len(instances)), -np.inf)
    for m, track in enumerate(tracks):
        shift = track.shift(stamp_ns)
        reach = track.state is TrackState.LOST or track.velocity is None
        for n, mask in enumerate(crops):
            # Still objects and wrong velocities exist: the place last seen counts as well.
            overlap = max(_iou(track, mask, instances.boxes[n], offset) for offset in (shift, np.zeros(2)))
            if overlap == 0 or overlap < min_iou:
                near = _nearness(track, mask, instances.boxes[n], shift) if reach else 0.0
                if near == 0:
                    continue
                overlap = max(overlap, min_iou * near)  # never better than a pair that overlaps enough
            table[m, n] = (1 - weight) * overlap + weight * cosine[m, n]
    return table


def _iou(track: Track, mask: np.ndarray, box: np.ndarray, shift: np.ndarray) -> float:
    """IoU of the track's mask, moved by `shift` px, with an instance's mask; only where the boxes meet."""
    a_x, a_y = np.round(track.box[:2] + shift).astype(int)
    b_x, b_y = np.round(box[:2]).astype(int)
    x0, y0 = max(a_x, b_x), max(a_y, b_y)
    x1, y1 = min(a_x + track.mask.shape[1], b_x + mask.shape[1]), min(a_y + track.mask.shape[0], b_y + mask.shape[0])
    if x0 >= x1 or y0 >= y1:
        return 0.0
    common = np.count_nonzero(track.mask[y0 - a_y:y1 - a_y, x0 - a_x:x1 - a_x] & mask[y0 - b_y:y1 - b_y, x0 - b_x:x1 - b_x])
    return common / (np.count_nonzero(track.mask) + np.count_nonzero(mask) - common)


def _nearness(track: Track, mask: np.ndarray, box: np.ndarray, shift: np.ndarray) -> float:
    """1 at the predicted centre, falling to 0 at one mean box diagonal from it; 0 if the areas differ too much."""
    small, large = sorted((np.count_nonzero(track.mask), np.count_nonzero(mask)))
    if large > MAX_AREA_RATIO * small:
        return 0.0
    offset = (box[:2] + box[2:] - track.box[:2] - track.box[2:]) / 2 - shift
    diagonal = (np.hypot(*mask.shape) + np.hypot(*track.mask.shape)) / 2
    return max(0.0, 1.0 - float(np.hypot(*offset)) / diagonal)


def _cosine(embeddings: list[np.ndarray], others: np.ndarray) -> np.ndarray:
    """(M, N) cosine clipped to [0, 1]; 0 for models without embeddings."""
    if not embeddings or not len(others) or not others.shape[1]:
        return np.zeros((len(embeddings), len(others)))
    unit = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            for rows in (np.stack(embeddings), others)]
    return np.clip(unit[0] @ unit[1].T, 0.0, 1.0)
