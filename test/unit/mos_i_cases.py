"""Made-up truths and predictions for MOS-I, by seed: the goldens are the official script's answers.

A case is a list of sequences: (truth (T, H, W) u8, prediction (T', H', W') u8, {id: [[first,
last], ...]}, gate (T, 20) or None).
"""

import numpy as np

RANDOM = 40
SCRIPTED = ('perfect', 'never stops', 'extra static', 'hidden mover', 'nothing found',
            'still sequence beside', 'swapped ids', 'late half', 'gate', 'half size')


def case(name):
    """The sequences of a case: 'random N' or one of SCRIPTED."""
    if name.startswith('random'):
        rng = np.random.default_rng(int(name.split()[1]))
        return [_random(rng) for _ in range(rng.integers(1, 4))]
    return _scripted(name)


NAMES = (*(f'random {n}' for n in range(RANDOM)), *SCRIPTED)


def _box(frames, size, boxes, step=(0, 0)):
    """(T, H, W) ids of boxes {id: (y, x, h, w)} that move by `step` a frame."""
    ids = np.zeros((frames, *size), np.uint8)
    for t in range(frames):
        for number, (y, x, h, w) in boxes.items():
            y0, x0 = max(0, y + t * step[0]), max(0, x + t * step[1])
            ids[t, y0:y0 + h, x0:x0 + w] = number
    return ids


def _scripted(name):
    boxes = {1: (3, 2, 6, 7), 2: (14, 10, 8, 8)}
    truth = _box(10, (28, 40), boxes, (0, 2))
    anno = {'1': [[0, 4]], '2': [[0, 3], [6, 9]]}
    moving = np.zeros((10, 21), bool)
    moving[:5, 1] = moving[:4, 2] = moving[6:, 2] = True
    shown = np.where(np.take_along_axis(moving, truth.reshape(10, -1).astype(int), 1)
                     .reshape(truth.shape), truth, 0).astype(np.uint8)
    if name == 'perfect':
        return [(truth, shown, anno, None)]
    if name == 'never stops':
        return [(truth, truth, anno, None)]
    if name == 'extra static':
        extra = shown.copy()
        extra[:, 24:27, 30:38] = 7
        return [(truth, extra, anno, None)]
    if name == 'hidden mover':
        hidden = np.where(truth == 1, 0, truth).astype(np.uint8)
        return [(hidden, np.where(shown == 1, 0, shown).astype(np.uint8), anno, None)]
    if name == 'nothing found':
        return [(truth, np.zeros_like(truth), anno, None)]
    if name == 'still sequence beside':
        return [(truth, shown, anno, None), (truth, truth, {}, None),
                (truth[:4], np.roll(shown[:4], 2, 2), {'2': [[2, 99]]}, None)]
    if name == 'swapped ids':
        swap = np.array([0, 2, 1] + [0] * 18, np.uint8)
        half = np.where((np.arange(10) < 5)[:, None, None], shown, swap[shown])
        return [(truth, half.astype(np.uint8), anno, None)]
    if name == 'late half':
        return [(truth, shown[:6], anno, None)]
    if name == 'gate':
        gate = np.linspace(0, 1, 200).reshape(10, 20)
        return [(truth, truth, anno, gate)]
    return [(truth, shown[:, ::2, ::2].copy(), anno, None)]  # half size


def _random(rng):
    size, frames = (int(rng.integers(16, 40)), int(rng.integers(16, 48))), int(rng.integers(2, 9))
    objects = int(rng.integers(1, 6))
    ids = rng.choice(np.arange(1, 21), objects, replace=False)
    boxes = {int(i): (int(rng.integers(0, size[0] - 6)), int(rng.integers(0, size[1] - 6)),
                      int(rng.integers(3, 12)), int(rng.integers(3, 12))) for i in ids}
    truth = _box(frames, size, boxes, tuple(rng.integers(-1, 3, 2).tolist()))
    anno = {}
    for i in ids:
        first = int(rng.integers(0, frames))
        spans = [[first, first + int(rng.integers(0, frames))]]
        if rng.random() < 0.3:
            spans.append([0, 0])
        if rng.random() < 0.85:
            anno[str(i)] = spans
    anno = anno or {str(ids[0]): [[0, 1]]}
    table = np.concatenate([[0], rng.permutation(20) + 1]).astype(np.uint8)
    found = table[np.roll(truth, tuple(rng.integers(-2, 3, 2).tolist()), (1, 2))]
    found[rng.random(found.shape) < 0.05] = 0
    for t in range(frames):
        if rng.random() < 0.3:
            found[t][found[t] == rng.choice(table)] = 0
        if rng.random() < 0.3:
            y, x = rng.integers(0, size[0] - 4), rng.integers(0, size[1] - 4)
            found[t, y:y + 4, x:x + 4] = rng.integers(1, 21)
    if rng.random() < 0.25:
        found = found[:, ::2, 1::3].copy()
    elif rng.random() < 0.2:
        found = found.repeat(2, 1).repeat(2, 2)
    if rng.random() < 0.2:
        found = np.concatenate([found, found[:1]])
    elif rng.random() < 0.2:
        found = found[:-1]
    gate = rng.random((frames, 20)) if rng.random() < 0.2 else None
    return truth, found, anno, gate
