"""Metrics against hand-made cases, brute force and DIMOS' published definitions.
"""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mos_perception.datatypes import Instances, Tracks
from mos_perception.errors import ConfigError
from mos_perception.evaluation import metrics
from mos_perception.evaluation.score import Scorer

maps = hnp.arrays(np.uint16, (6, 7), elements=st.integers(0, 4))


def ious(gt, pred):
    return {(g, p): ((gt == g) & (pred == p)).sum() / ((gt == g) | (pred == p)).sum()
            for g in np.unique(gt[gt > 0]) for p in np.unique(pred[pred > 0])}


@settings(max_examples=80, deadline=None)
@given(maps, maps)
def test_overlaps_are_counted(gt, pred):
    counts = metrics.overlaps(gt, pred)
    want = ious(gt, pred)
    assert {
        (g, p): counts.iou[i, j]
        for i, g in enumerate(counts.gt_ids)
        for j, p in enumerate(counts.pred_ids)
    } == pytest.approx(want)
    assert counts.gt_area.tolist() == [(gt == g).sum() for g in counts.gt_ids]
    assert counts.pred_area.tolist() == [(pred == p).sum() for p in counts.pred_ids]


@settings(max_examples=80, deadline=None)
@given(maps, maps)
def test_parity_miou_ins_by_the_letter(gt, pred):
    gt = metrics.align_ids(gt)
    left, values = [int(p) for p in np.unique(pred) if p], []
    for g in range(1, int(gt.max()) + 1):
        a = gt == g
        scored = [
            (((a & (pred == p)).sum() + 1e-6) / ((a | (pred == p)).sum() + 1e-6), p) for p in left
        ]
        best = max(scored, key=lambda item: item[0]) if scored else (0.0, None)
        values.append(best[0])
        left = [p for p in left if p != best[1]]
    assert metrics.released_miou_ins(metrics.overlaps(gt, pred)) == pytest.approx(
        np.mean(values) if values else 0.0
    )


@settings(max_examples=80, deadline=None)
@given(maps, maps)
def test_strict_miou_is_the_best_matching(gt, pred):
    table, g, p = ious(gt, pred), list(np.unique(gt[gt > 0])), list(np.unique(pred[pred > 0]))
    short, long = sorted((g, p), key=len)
    ways = [[(a, b) if short is g else (b, a) for a, b in zip(short, order)]
            for order in itertools.permutations(long, len(short))]
    best = max(sum(table[pair] for pair in way) for way in ways)
    equally_good = [way for way in ways if sum(table[pair] for pair in way) > best - 1e-9]
    wanted = [best / (len(g) + len(p) - sum(table[pair] > 0 for pair in way)) if g or p else 1.0
              for way in equally_good]
    assert (
        min(abs(metrics.strict_miou(metrics.overlaps(gt, pred)) - want) for want in wanted) < 1e-9
    )


@settings(max_examples=40, deadline=None)
@given(maps)
def test_perfect_and_empty(ids):
    counts, nothing = metrics.overlaps(ids, ids), np.zeros_like(ids)
    there = float(ids.any())
    assert metrics.released_miou_ins(counts) == pytest.approx(there)
    assert metrics.released_miou01(ids, ids) == pytest.approx(there)
    assert metrics.strict_miou(counts) == 1.0
    assert (
        metrics.released_miou_ins(metrics.overlaps(nothing, ids))
        == metrics.released_miou01(nothing, ids)
        == 0
    )
    assert metrics.strict_miou(metrics.overlaps(nothing, ids)) == 1 - there
    assert metrics.strict_miou(metrics.overlaps(ids, nothing)) == 1 - there


@settings(max_examples=40, deadline=None)
@given(maps, st.integers(1, 5))
def test_disjoint_false_positive_costs_only_strict(ids, add):
    """Each object is predicted minus one pixel; a prediction away from all of them is added."""
    gt = np.zeros((8, 7), np.uint16)
    gt[:6] = metrics.align_ids(ids)
    pred = gt.copy()
    wrong = pred.copy()
    wrong[7, :add] = 9
    before, after = metrics.overlaps(gt, pred), metrics.overlaps(gt, wrong)
    assert metrics.released_miou_ins(after) == pytest.approx(
        metrics.released_miou_ins(before), abs=1e-6
    )
    n = len(before.gt_ids)
    assert metrics.strict_miou(after) == pytest.approx(n / (n + 1))


def test_parity_is_greedy_and_strict_is_not():
    gt = np.array([[1, 1, 1, 1, 1, 2, 2, 2, 2]], np.uint16)
    # the larger object 1 takes best: pred 1 (2/5); 2: 4/6
    pred = np.array([[1, 1, 0, 2, 2, 2, 2, 2, 2]], np.uint16)
    counts = metrics.overlaps(gt, pred)
    assert counts.iou == pytest.approx(np.array([[2 / 5, 2 / 9], [0, 4 / 6]]))
    assert metrics.released_miou_ins(counts) == pytest.approx((2 / 5 + 4 / 6) / 2)
    # one prediction: object 1 (3/9) removes it from 2 (4/7)
    taken = np.array([[0, 0, 2, 2, 2, 2, 2, 2, 2]], np.uint16)
    assert metrics.released_miou_ins(metrics.overlaps(gt, taken)) == pytest.approx((3 / 9 + 0) / 2)
    assert metrics.strict_miou(metrics.overlaps(gt, taken)) == pytest.approx(4 / 7 / 2)


def test_align_ids_orders_by_area_and_drops_small():
    ids = np.array([[7, 7, 7, 300, 300, 5, 0]], np.uint16)
    assert metrics.align_ids(ids).tolist() == [[1, 1, 1, 2, 2, 3, 0]]
    assert metrics.align_ids(ids, 2).tolist() == [[1, 1, 1, 2, 2, 0, 0]]
    assert metrics.align_ids(np.zeros((2, 2), np.uint16)).tolist() == [[0, 0], [0, 0]]


def test_bbox_iou_by_hand():
    gt, pred = np.array([[0, 0, 2, 2], [10, 10, 12, 12.]]), np.array([[0, 0, 2, 4.]])
    assert metrics.released_bbox_iou(gt, pred) == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert metrics.released_bbox_iou(gt, pred[:0]) == metrics.released_bbox_iou(gt[:0], pred) == 0


def masks_of(*spans):
    found = []
    for first, last in spans:
        found.append(np.zeros((4, 100), bool))
        found[-1][:, first:last] = True
    return found


def test_average_precision():
    good, wrong = (0, 20), (60, 80)
    perfect = metrics.MaskAp()
    perfect.add(masks_of(good, wrong), masks_of(good, wrong), np.array([0.9, 0.2]))
    assert perfect.value() == perfect.value(True) == pytest.approx(1)
    for scores, want in ((np.array([0.9, 0.2]), 1.0), (np.array([0.2, 0.9]), 0.5)):
        ap = metrics.MaskAp()
        ap.add(masks_of(good), masks_of(good, wrong), scores)
        # the false positive hurts when it is the surer one
        assert ap.value() == pytest.approx(want, abs=0.01)
    loose = metrics.MaskAp()
    # IoU 0.72: hits at .50 .55 .60 .65 .70
    loose.add(masks_of((0, 50)), masks_of((0, 36)), np.array([0.5]))
    assert loose.value() == pytest.approx(0.5)
    empty = metrics.MaskAp()
    assert empty.value() is None
    empty.add(masks_of(good), [], np.zeros(0))
    assert empty.value() == 0


def test_parity_map_ignores_scores():
    """The surer detection comes second in the list: with constant scores the order of the list
    decides.
    """
    ap = metrics.MaskAp()
    ap.add(masks_of((0, 20)), masks_of((60, 80), (0, 20)), np.array([0.1, 0.9]))
    assert ap.value() == pytest.approx(1) and ap.value(True) == pytest.approx(0.5, abs=0.01)


def test_id_switches_by_hand():
    mot, full = metrics.IdSwitches(), np.eye(2)
    gt = np.array([4, 9])
    mot.add(gt, np.array([1, 2]), full)
    mot.add(gt, np.array([2, 1]), full)                       # swap: two switches
    # 9 untracked: a miss and a false positive
    mot.add(gt, np.array([2, 0]), full)
    mot.add(gt, np.array([2, 1]), full)                       # 9 is back as 1: no switch
    # below 0.5: a miss and a false positive
    mot.add(gt, np.array([2, 3]), np.diag([1, 0.4]))
    mot.add(gt, np.array([2, 3]), full)                       # 9 is now 3: a switch
    assert (mot.switches, mot.misses, mot.false_positives, mot.objects) == (3, 2, 2, 12)
    assert mot.mota == pytest.approx(1 - 7 / 12)
    assert metrics.IdSwitches().mota is None


def test_id_match_is_kept_though_another_is_better():
    mot = metrics.IdSwitches()
    mot.add(np.array([1]), np.array([5]), np.array([[0.9]]))
    mot.add(np.array([1]), np.array([5, 6]), np.array([[0.55, 0.6]]))
    assert mot.switches == 0 and mot.false_positives == 1


def result(ids: np.ndarray, tracks=None, scores=None, moving=None) -> tuple[Instances, Tracks]:
    """Instances and tracks from an id map; track id = pixel id unless given."""
    names = [int(n) for n in np.unique(ids) if n]
    count = len(names)
    masks = np.array([ids == n for n in names]).reshape(count, *ids.shape)
    boxes = [(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in map(np.nonzero, masks)]
    found = Instances(
        masks,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores or [0.5] * count, np.float32),
        np.ones(count, np.float32),
        np.ones(count, bool) if moving is None else np.array(moving),
        np.zeros((count, 0), np.float32),
    )
    return found, Tracks(
        np.array(tracks or names, np.int64),
        np.ones(count, np.int64),
        np.ones(count),
        found.boxes,
        np.zeros((count, 2)),
        np.arange(count),
    )


SCENE = np.kron(np.array([[1, 0, 2], [0, 3, 0]], np.uint16), np.ones((10, 10), np.uint16))


def test_scorer_perfect():
    scorer = Scorer()
    for n in range(3):
        scorer.add(n, SCENE, {1, 2, 3}, *result(SCENE))
    values = scorer.summary()
    assert values['frames'] == values['frames_with_gt'] == 3 and values['gt_instances'] == 9
    for name in ('mIoU_ins', 'mIoU_ins_valid', 'mIoU01', 'bbox_iou', 'mAP'):
        assert values['released'][name] == pytest.approx(1, abs=1e-6), name
    for name in ('mIoU', 'AP', 'IoU_large', 'motion_precision', 'motion_recall', 'MOTA'):
        assert values['strict'][name] == pytest.approx(1), name
    assert values['strict']['id_switches'] == 0 and values['released']['mask_mae'] == 0
    assert json.loads(json.dumps(values)) == values
    assert 'mIoU_ins' in scorer.text() and '1.0000' in scorer.text()


def test_scorer_counts_only_what_moves():
    scorer = Scorer()
    # 2 and 3 stand still: false positives
    scorer.add(0, SCENE, {1, 77}, *result(SCENE))
    values = scorer.summary()
    assert values['released']['mIoU_ins'] == pytest.approx(1) and values['strict'][
        'mIoU'
    ] == pytest.approx(1 / 3)
    assert values['released']['mIoU01'] == pytest.approx(1 / 3)
    assert (
        values['strict']['motion_precision'] == pytest.approx(1 / 3)
        and values['strict']['motion_recall'] == 1
    )
    still = Scorer()
    # said to be still: not counted
    still.add(0, SCENE, {1}, *result(SCENE, moving=[True, False, False]))
    assert still.summary()['strict']['mIoU'] == 1


def test_scorer_frames_without_motion():
    scorer, nothing = Scorer(), np.zeros_like(SCENE)
    scorer.add(0, SCENE, set(), *result(nothing))
    scorer.add(1, SCENE, {1, 2, 3}, *result(SCENE))
    values = scorer.summary()
    assert values['released']['mIoU_ins'] == pytest.approx(0.5) and values['released'][
        'mIoU_ins_valid'
    ] == pytest.approx(1)
    assert values['strict']['mIoU'] == 1
    scorer.add(2, SCENE, set(), *result(SCENE))
    assert scorer.summary()['strict']['mIoU'] == pytest.approx(2 / 3)


def test_scorer_min_pixels_ignores_small_objects():
    scene = SCENE.copy()
    scene[scene == 3] = 0
    scene[10:13, 10:13] = 3
    for limit, precision, count in ((0, 1, 3), (9, 1, 3), (10, 1, 2)):
        scorer = Scorer(limit)
        scorer.add(0, scene, {1, 2, 3}, *result(scene))
        values = scorer.summary()
        assert values['gt_instances'] == count and values['strict']['motion_precision'] == precision
        assert values['strict']['mIoU'] == 1


def test_scorer_tells_sizes_apart():
    truth, found = np.zeros((100, 100), np.uint16), np.zeros((100, 100), np.uint16)
    truth[:5, :10], truth[20:30, :10], truth[40:60, :20] = 1, 2, 3  # 0.5 %, 1 %, 4 %
    found[:5, :8], found[40:60, :10] = 1, 2
    scorer = Scorer()
    scorer.add(0, truth, {1, 2, 3}, *result(found))
    strict = scorer.summary()['strict']
    assert [strict[f'IoU_{size}'] for size in ('small', 'medium', 'large')] == pytest.approx(
        [0.8, 0.0, 0.5]
    )
    assert Scorer().summary()['strict']['IoU_small'] is None


def test_scorer_id_switches():
    scorer = Scorer()
    for n, tracks in enumerate(([1, 2, 3], [1, 2, 3], [2, 1, 3], [2, 1, 3])):
        scorer.add(n, SCENE, {1, 2, 3}, *result(SCENE, tracks))
    assert scorer.summary()['strict']['id_switches'] == 2


def test_scorer_untracked_instances_and_sizes():
    scorer = Scorer()
    found, tracks = result(SCENE)
    empty = Tracks(
        *(
            array[:0]
            for array in (
                tracks.ids,
                tracks.states,
                tracks.ages_s,
                tracks.boxes,
                tracks.velocities,
                tracks.instance,
            )
        )
    )
    scorer.add(0, SCENE, {1, 2, 3}, found, empty)
    assert (
        scorer.summary()['strict']['misses'] == scorer.summary()['strict']['false_positives'] == 3
    )
    with pytest.raises(ConfigError, match=r'\(5, 5\), result \(20, 30\)'):
        scorer.add(1, np.zeros((5, 5), np.uint16), set(), found, tracks)


def test_scorer_without_frames():
    values = Scorer().summary()
    assert values['released']['mIoU_ins'] is None and values['strict']['AP'] is None
    assert Scorer().text().count('-') > 5
