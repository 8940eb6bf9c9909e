"""J and F of a video's objects as DAVIS 2017's unsupervised task scores them.

From davisvideochallenge/davis2017-evaluation: at most 20 proposals; the objects are those up to the
largest id of the *first* frame; all frames count, void pixels do not; one assignment per sequence,
of greatest mean (J + F) / 2; an object without a proposal has one that is empty. Grouped: the union
of the proposals against that of the objects. Legend: T frames, G objects, P proposals, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from scipy.optimize import linear_sum_assignment

from mos_perception.errors import ConfigError
from mos_perception.evaluation.boundary import Outline, outlines_f

MAX_PROPOSALS = 20
_BINS = 4  # of a sequence, whose first and last give the decay


@dataclass(frozen=True)
class ObjectScores:
    """J and F (G, T) of one sequence's objects, in the order of their ids."""

    j: np.ndarray
    f: np.ndarray


def unsupervised(truth: Iterable[np.ndarray], found: Iterable[np.ndarray],
                 void: Iterable[np.ndarray] | None = None) -> ObjectScores:
    """Every object with its proposal, from (H, W) id images and (H, W) bool void ones.

    Raises ConfigError: other sizes or lengths, no frames, or a proposal beyond 20.
    """
    tables, objects, proposals = [], 0, 0
    for row, (wanted, given, ignored) in enumerate(_frames(truth, found, void)):
        if row == 0:
            objects = int(wanted.max(initial=0))
        proposals = max(proposals, int(given.max(initial=0)))
        if proposals > MAX_PROPOSALS:
            raise ConfigError(f'prediction of frame {row} has id {proposals}: the protocol takes 1 '
                              f'to {MAX_PROPOSALS}; leave the worst proposals out, and renumber')
        tables.append(_table(wanted, given, ignored, objects))
    if not tables:
        raise ConfigError('J and F of no frames: the sequence must have at least one')
    scores = np.stack(tables)[:, :, :max(proposals, objects)]  # (T, 2, P, G)
    rows, columns = linear_sum_assignment(-scores.mean((0, 1)))
    order = np.argsort(columns)
    j, f = scores[:, :, rows[order], columns[order]].transpose(1, 2, 0)
    return ObjectScores(j, f)


def grouped(truth: Iterable[np.ndarray], found: Iterable[np.ndarray],
            void: Iterable[np.ndarray] | None = None) -> ObjectScores:
    """All objects as one (G = 1), also those that come later; arguments and errors as above.

    The original, given merged masks, leaves a sequence out in whose first frame there is nothing.
    """
    scores = [_table((wanted > 0).astype(np.uint8), (given > 0).astype(np.uint8), ignored, 1)[:, 0]
              for wanted, given, ignored in _frames(truth, found, void)]
    if not scores:
        raise ConfigError('J and F of no frames: the sequence must have at least one')
    j, f = np.stack(scores, 2).transpose(0, 1, 2)
    return ObjectScores(j, f)


def statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, recall (share above 0.5) and decay (first quarter less last one) of values (T,).

    The original counts in 8 bits and so has another decay beyond 256 frames.
    """
    edges = (np.round(np.linspace(1, len(values), _BINS + 1) + 1e-10) - 1).astype(int)
    first, last = (values[edges[n]:edges[n + 1] + 1] for n in (0, _BINS - 1))
    return (float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean()))


@dataclass
class DavisScores:
    """Gathers sequences; every figure is a mean over all objects of the data set."""

    sequences: dict[str, ObjectScores] = field(default_factory=dict)

    def add(self, name: str, scores: ObjectScores) -> None:
        """One sequence. Raises ConfigError where it is there already."""
        if name in self.sequences:
            raise ConfigError(f'sequence {name} is scored twice: name each once')
        self.sequences[name] = scores

    def summary(self) -> dict[str, float | None]:
        """J&F, then mean, recall and decay of J and of F; None without objects."""
        names = ('mean', 'recall', 'decay')
        found: dict[str, float | None] = {'J&F': None}
        for key in 'jf':
            rows = [statistics(row) for scores in self.sequences.values()
                    for row in getattr(scores, key)]
            means = np.mean(rows, 0).tolist() if rows else [None] * 3
            found |= {f'{key.upper()}_{name}': value for name, value in zip(names, means)}
        if found['J_mean'] is not None:
            found['J&F'] = (found['J_mean'] + found['F_mean']) / 2
        return found


def _frames(truth: Iterable[np.ndarray], found: Iterable[np.ndarray],
            void: Iterable[np.ndarray] | None) -> Iterable[tuple[np.ndarray, ...]]:
    none = iter(()) if void is None else iter(void)
    for row, (wanted, given) in enumerate(zip_longest(truth, found)):
        if wanted is None or given is None:
            raise ConfigError(f'truth or prediction ends before frame {row}: both must have every '
                              'frame')
        ignored = next(none, None) if void is not None else np.zeros(wanted.shape, bool)
        if ignored is None or not wanted.shape == given.shape == ignored.shape:
            raise ConfigError(f'frame {row}: truth is {wanted.shape}, prediction {given.shape} (h, '
                              'w), void likewise: bring the prediction to the size of the truth')
        yield wanted, given, ignored


def _table(wanted: np.ndarray, given: np.ndarray, ignored: np.ndarray,
           objects: int) -> np.ndarray:
    """(2, 20, G): J and F of every proposal with every object."""
    wanted, given = (np.where(ignored, 0, ids) for ids in (wanted, given))
    truths = [wanted == number for number in range(1, objects + 1)]
    outlines = [Outline.of(mask) for mask in truths]
    areas = [np.count_nonzero(mask) for mask in truths]
    # an absent proposal agrees with an absent object alone
    table = np.tile(np.array([[area == 0 for area in areas],
                              [line.count == 0 for line in outlines]], float)[:, None],
                    (1, MAX_PROPOSALS, 1))
    for number in np.unique(given[given > 0]).tolist():
        mask = given == number
        outline, area = Outline.of(mask), np.count_nonzero(mask)
        for column, truth in enumerate(truths):
            common = np.count_nonzero(mask & truth)
            table[0, number - 1, column] = common / (area + areas[column] - common)
            table[1, number - 1, column] = outlines_f(outline, outlines[column])
    return table
