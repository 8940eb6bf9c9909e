"""A figure cut from its ground where that costs least: minimum cut on the grid of pixels.

Boykov and Jolly 2001, "Interactive Graph Cuts for Optimal Boundary & Region Segmentation of Objects
in N-D Images": evidence at each pixel, and a price for each pair of neighbours that the outline
separates, low where the picture has an edge.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

_PAIRS = ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.5 ** 0.5), (1, -1, 0.5 ** 0.5))  # dy, dx, 1 / length
NEAR_PX = 4          # of its mask may a network's instance grow
SURE = 3.0           # log-odds that decide a pixel; more do not count more
PRICE = 8.0          # of an instance's outline, in log-odds a pixel; more hardly matters
_LEVELS = 100  # whole numbers per unit of evidence: the flow is of integers


def figure(evidence: np.ndarray, image: np.ndarray, price: float) -> np.ndarray:
    """(H, W) bool, the pixels on the figure's side.

    `evidence` (H, W), above zero for the figure; `image` (H, W, C) float32; `price` of separating
    two neighbours of one colour, in units of the evidence.
    """
    for_it = np.rint(_LEVELS * evidence.astype(np.float64).ravel()).astype(np.int32)
    ours, theirs = np.flatnonzero(for_it > 0), np.flatnonzero(for_it < 0)
    if not len(ours) or not len(theirs):
        return np.full(evidence.shape, bool(len(ours)))
    count = evidence.size
    source, sink = count, count + 1
    first, second, prices = _links(image, price)
    rows = np.concatenate([first, second, np.full(len(ours), source), theirs])
    columns = np.concatenate([second, first, ours, np.full(len(theirs), sink)])
    values = np.concatenate([prices, prices, for_it[ours], -for_it[theirs]])
    graph = csr_matrix((values.astype(np.int32), (rows, columns)), (count + 2, count + 2))
    left = graph - maximum_flow(graph, source, sink).flow
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    found = np.zeros(count + 2, bool)
    found[breadth_first_order(left, source, return_predecessors=False)] = True
    return found[:count].reshape(evidence.shape)


def instances_at_edges(masks: np.ndarray, odds: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Disjoint masks (N, H, W) bool of a network, their outlines moved to edges of `image`
    (H, W, C) float32. `odds` (H, W): the log-odds that a pixel is an object's. A mask that would be
    empty stays as it was.
    """
    found = np.zeros_like(masks)
    for number, mask in enumerate(masks):
        away = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3)
        others = np.delete(masks, number, 0).any(0) | found[:number].any(0)
        evidence = np.where((away <= NEAR_PX) & ~others, np.clip(odds, -SURE, SURE), -SURE)
        rows, columns = np.nonzero(away <= 2 * NEAR_PX)
        area = np.s_[rows.min():rows.max() + 1, columns.min():columns.max() + 1]
        found[number][area] = figure(evidence[area], image[area], PRICE)
        found[number] &= ~others
        if not found[number].any():
            found[number] = mask
    return found


def _links(image: np.ndarray, price: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both pixels' numbers and the price of each pair: `price` exp(-d^2 / (2 mean d^2)) / length,
    d the distance of the colours.
    """
    height, width = image.shape[:2]
    numbers = np.arange(height * width).reshape(height, width)
    ends, squares, lengths = [], [], []
    for dy, dx, length in _PAIRS:
        here = np.s_[:height - dy, max(0, -dx):width - max(0, dx)]
        there = np.s_[dy:, max(0, dx):width + min(0, dx)]
        ends.append((numbers[here].ravel(), numbers[there].ravel()))
        squares.append(((image[here] - image[there]) ** 2).sum(2).ravel())
        lengths.append(np.full(squares[-1].size, length))
    distance, lengths = np.concatenate(squares), np.concatenate(lengths)
    prices = price * lengths * np.exp(-distance / (2 * distance.mean() + 1e-6))
    first, second = (np.concatenate(side) for side in zip(*ends))
    return first, second, np.rint(_LEVELS * prices)
