"""Made-up truths with void and predictions for DAVIS' unsupervised protocol, by seed."""

import numpy as np

CASES = 16


def case(seed):
    """(truth (T, H, W) u8 with 255 = void, prediction (T, H, W) u8)."""
    rng = np.random.default_rng(seed)
    frames, size = int(rng.integers(4, 10)), (int(rng.integers(30, 60)), int(rng.integers(30, 80)))
    truth = np.zeros((frames, *size), np.uint8)
    for number in range(1, int(rng.integers(1, 5)) + 1):
        y, x, h, w = rng.integers(0, 25), rng.integers(0, 25), *rng.integers(4, 16, 2)
        dy, dx = rng.integers(-1, 3, 2)
        for t in range(frames):
            if rng.random() < 0.85:
                y0, x0 = max(0, y + t * dy), max(0, x + t * dx)
                truth[t, y0:y0 + h, x0:x0 + w] = number
    names = np.concatenate([[0], rng.permutation(6) + 1]).astype(np.uint8)
    found = names[np.roll(truth, tuple(rng.integers(-3, 4, 2).tolist()), (1, 2))]
    found[rng.random(found.shape) < 0.03] = 0
    if rng.random() < 0.5:
        found[:, 20:28, 5:15] = rng.integers(1, 9)
    if rng.random() < 0.3:
        found[found == rng.integers(1, 7)] = 0
    if rng.random() < 0.6:
        truth[:, 10:16, 12:24] = 255
    return truth, found
