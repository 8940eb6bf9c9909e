"""Association by mask IoU and embedding cosine, solved as one assignment.

similarity = (1 - w) x overlap + w x max(0, cosine). A track's mask is carried along the flow before
it is compared; where there is no flow, or the flow lost it, it is moved at constant velocity. Pairs
need IoU >= `track_min_iou`; tracks that are lost, or too young to have a velocity, may also match
by proximity: a small fast object need not overlap itself one frame later.
"""

from __future__ import annotations

import math

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

    def update(self, instances: Instances, stamp_ns: int, flow: np.ndarray | None = None,
               flow_error: np.ndarray | None = None,
               image: np.ndarray | None = None) -> tuple[Instances, Tracks]:
        """The instances with those held, and the tracks; `image` is not looked at.

        Raises SyncError if `stamp_ns` is before the last one.
        """
        tracks = self.store.advance(stamp_ns, instances.size, flow, flow_error)
        matches = assign(similarity(tracks, instances, stamp_ns, self.min_iou, self.weight))
        return self.store.apply(matches, instances)

    def reset(self) -> None:
        """Forget everything; ids start at 1 again (a new epoch)."""
        self.store.reset()


def assign(similarity_mn: np.ndarray) -> list[tuple[int, int]]:
    """The pairs (track row, instance row) of greatest summed similarity; -inf marks a forbidden
    pair.
    """
    allowed = np.isfinite(similarity_mn)
    rows, columns = linear_sum_assignment(np.where(allowed, similarity_mn, -1e-6), maximize=True)
    return [(int(m), int(n)) for m, n in zip(rows, columns) if allowed[m, n]]


def similarity(
    tracks: list[Track], instances: Instances, stamp_ns: int, min_iou: float, weight: float
) -> np.ndarray:
    """(M, N) in [0, 1], -inf where the pair is impossible."""
    table = np.full((len(tracks), len(instances)), -np.inf)
    cosine = _cosine([track.embedding for track in tracks], instances.embeddings)
    news = [_Patch(crop(instances, n), box) for n, box in enumerate(instances.boxes)]
    for m, track in enumerate(tracks):
        place = _Place(track, stamp_ns)
        for n, new in enumerate(news):
            overlap = place.overlap(new, min_iou)
            if overlap > 0:
                table[m, n] = (1 - weight) * overlap + weight * cosine[m, n]
    return table


class _Place:
    """Where a track may be now."""

    def __init__(self, track: Track, stamp_ns: int) -> None:
        here = None if track.carried is None else _Patch(track.carried.mask, track.carried.box)
        last, shift = _Patch(track.seen.mask, track.seen.box), track.shift(stamp_ns)
        self.here = here if track.placed else None
        self.places, self.centres = [], []  # (patch, its shift) for overlap and for proximity
        if not track.forgotten:
            # Still objects and wrong velocities exist: the place last seen counts as well.
            offsets = {(0, 0), (round(shift[0]), round(shift[1]))}
            self.places, self.centres = [(last, offset) for offset in offsets], [(last, shift)]
        if track.hidden and here is not None:
            self.places.append((here, (0, 0)))
            self.centres.append((here, (0, 0)))
        self.stays = track.placed and track.held  # it was there one answer ago, at rest
        self.reaches = track.held or track.state is TrackState.LOST or track.velocity is None

    def overlap(self, new: _Patch, min_iou: float) -> float:
        """IoU with an instance, or proximity in its stead; 0 where it is another object."""
        least = max(min_iou, np.finfo(float).tiny)
        if self.here is not None:
            overlap = self.here.iou(new, 0, 0)
            if overlap >= least or self.stays:
                return overlap if overlap >= least else 0.0
        # no flow, an object too small and fast for it, or a hidden one
        overlap = max((patch.iou(new, *shift) for patch, shift in self.places), default=0.0)
        if overlap >= least or not self.reaches:
            return overlap if overlap >= least else 0.0
        near = max((patch.proximity(new, *shift) for patch, shift in self.centres), default=0.0)
        # never better than a pair that overlaps enough
        return max(overlap, least * near) if near > 0 else 0.0


class _Patch:
    """A mask cut out along its box, with its place in the image.

    Plain ints: small arrays are slow.
    """

    def __init__(self, mask: np.ndarray, box: np.ndarray) -> None:
        self.mask, self.area = mask, np.count_nonzero(mask)
        self.x, self.y = round(float(box[0])), round(float(box[1]))
        self.height, self.width = mask.shape

    def iou(self, other: _Patch, dx: int, dy: int) -> float:
        """Mask IoU after moving this one by (dx, dy) px; looks only where the boxes meet."""
        x, y = self.x + dx, self.y + dy
        x0, x1 = max(x, other.x), min(x + self.width, other.x + other.width)
        y0, y1 = max(y, other.y), min(y + self.height, other.y + other.height)
        if x0 >= x1 or y0 >= y1:
            return 0.0
        mine = self.mask[y0 - y:y1 - y, x0 - x:x1 - x]
        theirs = other.mask[y0 - other.y:y1 - other.y, x0 - other.x:x1 - other.x]
        common = np.count_nonzero(mine & theirs)
        return common / max(1, self.area + other.area - common)

    def proximity(self, other: _Patch, dx: float, dy: float) -> float:
        """1 at the predicted centre, falling to 0 at one mean box diagonal from it; 0 if the areas
        differ too much.
        """
        if max(self.area, other.area) >= MAX_AREA_RATIO * min(self.area, other.area):
            return 0.0
        distance = math.hypot(other.x + other.width / 2 - self.x - self.width / 2 - dx,
                              other.y + other.height / 2 - self.y - self.height / 2 - dy)
        diagonal = (math.hypot(self.width, self.height) + math.hypot(other.width, other.height)) / 2
        return max(0.0, 1.0 - distance / diagonal)


def _cosine(embeddings: list[np.ndarray], others: np.ndarray) -> np.ndarray:
    """(M, N) cosine clipped to [0, 1]; 0 for models without embeddings."""
    if not embeddings or not len(others) or not others.shape[1]:
        return np.zeros((len(embeddings), len(others)))
    unit = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            for rows in (np.stack(embeddings), others)]
    return np.clip(unit[0] @ unit[1].T, 0.0, 1.0)
