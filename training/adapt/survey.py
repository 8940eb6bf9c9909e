"""What of a recording can teach: length, rate, exposure, motion, and motion that is no parallax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mos_perception.errors import DatasetError
from training.adapt.mine import MOVES, Mined

LEAST_S = 5.0            # of usable video, over all recordings
LEAST_HZ = 8.0           # slower, and no frame is near enough for the short gap
MOST_CLIPPED = 0.5       # share of a frame's pixels that are black or white
MOST_MOVING = 0.6        # share of a frame off the camera's motion: then it is unknown itself
LEAST_LEARNED = 0.1      # share of usable frames in which something moves for sure
LEAST_MARGIN = 0.0015    # share of a frame that moves for sure, to count as such


@dataclass(frozen=True)
class Survey:
    """One recording. Shares are of its answered frames; `moving` and `unsure` of the usable ones.

    `seconds` between first and last frame, `usable_s` of frames that can teach, `rate_hz` their
    median; `exposed` neither dark nor glaring, `complete` with all the frames that the evidence
    looks at, `steady` with a camera motion that most pixels follow, `moving` in which something
    moves for sure, `unsure` mean share of pixels without a label.
    """

    bag: str
    frames: int
    seconds: float
    rate_hz: float
    exposed: float
    complete: float
    steady: float
    usable_s: float
    moving: float
    unsure: float
    fault: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: round(value, 3) if isinstance(value, float) else value
                for name, value in asdict(self).items()}

    def complaints(self) -> list[str]:
        """What a person should do better, in words; empty where all is well."""
        found = []
        if self.fault:
            found.append(f'damaged, read as far as it goes: {self.fault}')
        if self.rate_hz < LEAST_HZ:
            found.append(f'{self.rate_hz:.1f} frames/s: record at {LEAST_HZ:g} or more')
        for share, text in (
            (self.exposed, 'too dark or too bright: set the exposure'),
            (self.complete, 'have gaps around them: record without dropping frames'),
            (self.steady, 'follow no common camera motion (near things, rolling shutter, blur): '
                          'keep farther away, turn more slowly'),
        ):
            if share < 0.9:
                found.append(f'{1 - share:.0%} of the frames {text}')
        if self.usable_s > 0 and self.moving < LEAST_LEARNED:
            found.append(f'something moves for sure in {self.moving:.0%} of the frames: record '
                         'what shall be found while it moves')
        return found


def usable(clipped: np.ndarray, missing_gaps: np.ndarray, off: np.ndarray,
           gaps: int) -> dict[str, np.ndarray]:
    """(T,) bool each: `exposed`, `complete`, `steady`, and `all` of them. `clipped` and `off`, the
    share off the camera's motion, (T,); `missing_gaps` (T,) of `gaps` in all.
    """
    found = {'exposed': clipped <= MOST_CLIPPED, 'complete': missing_gaps < gaps,
             'steady': off <= MOST_MOVING}
    return found | {'all': np.logical_and.reduce(list(found.values()))}


def survey(bag: str, stamps_ns: np.ndarray, kinds: dict[str, np.ndarray], mined: Mined,
           fault: str) -> Survey:
    """Of a recording's answered frames, at `stamps_ns` (T,), and what `usable` says of them."""
    steps = np.diff(stamps_ns) * 1e-9
    rate = 1 / float(np.median(steps)) if len(steps) else 0.0
    good = kinds['all']
    moves = (mined.labels[good] == MOVES).mean((1, 2)) >= LEAST_MARGIN
    return Survey(
        bag, len(stamps_ns), float(steps.sum()), rate,
        *(float(kinds[name].mean()) for name in ('exposed', 'complete', 'steady')),
        float(good.sum() / rate) if rate else 0.0,
        float(moves.mean()) if len(moves) else 0.0,
        float((mined.labels[good] > MOVES).mean()) if len(moves) else 1.0, fault,
    )


def require(surveys: Sequence[Survey], least_s: float = LEAST_S) -> None:
    """Raise DatasetError unless the recordings together can teach; the message says what to do."""
    seconds = sum(found.usable_s for found in surveys)
    told = '; '.join(f'{found.bag}: {text}' for found in surveys for text in found.complaints())
    rates = [found.rate_hz for found in surveys]
    if max(rates, default=0.0) < LEAST_HZ and sum(found.frames for found in surveys) > 1:
        raise DatasetError(f'no recording has {LEAST_HZ:g} frames/s: nothing was learned; {told}')
    if seconds < least_s:
        raise DatasetError(
            f'{seconds:.1f} s of usable video in {len(surveys)} recordings: must be >= '
            f'{least_s:g} s; record longer{"; " + told if told else ""}')
    moving = sum(found.moving * found.usable_s for found in surveys) / seconds
    if moving < LEAST_LEARNED:
        raise DatasetError(
            f'something moves for sure in {moving:.0%} of the usable frames: must be >= '
            f'{LEAST_LEARNED:.0%}; nothing can be learned from what stands still or moves only '
            f'with the camera; {told}')
