"""Objects that stop: a textured patch before a textured wall, seen by a camera that moves.

The detector is the truth of what moves, so everything else is the tracker's word.
"""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mos_perception.config import Config
from mos_perception.datatypes import (
    Fault,
    Frame,
    Instances,
    Modality,
    Result,
    SyncedInput,
    TrackState,
)
from mos_perception.errors import EngineError
from mos_perception.evaluation.score import Scorer
from mos_perception.masks import mask_boxes
from mos_perception.motion.backward_flow import BackwardFlow
from mos_perception.pipeline import Pipeline
from mos_perception.recording.instances_message import message_fields
from mos_perception.recording.results import read_result, write_result
from mos_perception.reports.run_statistics import RunStatistics
from mos_perception.tracking import load_tracker

MS = 1_000_000
SIZE, STEP_NS = (120, 160), 33 * MS
STOPPED = TrackState.CONFIRMED


def texture(size, seed):
    noise = np.random.default_rng(seed).integers(0, 256, size).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return np.clip(110 + 10 * seed + 4 * (smooth - smooth.mean()), 0, 255).astype(np.uint8)


class World:
    """A wall 240 px high, and elliptic things on it that go where they are told to."""

    def __init__(self):
        self.wall = texture((240, 400), 1)
        self.things = []

    def put(self, seed=5, axes=(16, 12)):
        stencil = np.zeros((2 * axes[1] + 1, 2 * axes[0] + 1), np.uint8)
        cv2.ellipse(stencil, axes, axes, 0, 0, 360, 255, -1)
        self.things.append((texture(stencil.shape, seed), stencil))
        return len(self.things) - 1

    def view(self, camera, places):
        """(frame image, [mask of each thing]); `camera` (2, 3) takes the wall to the image."""
        wall, ids = self.wall.copy(), np.zeros(self.wall.shape, np.uint8)
        for number, place in places.items():  # later ones in front
            look, stencil = self.things[number]
            y, x = round(place[1]), round(place[0])
            part = np.s_[y:y + stencil.shape[0], x:x + stencil.shape[1]]
            wall[part][stencil > 0] = look[stencil > 0]
            ids[part][stencil > 0] = number + 1
        image = cv2.warpAffine(wall, camera, SIZE[::-1], flags=cv2.INTER_LINEAR)
        seen = cv2.warpAffine(ids, camera, SIZE[::-1], flags=cv2.INTER_NEAREST)
        return (np.repeat(image[..., None], 3, 2),
                [seen == number + 1 for number in range(len(self.things))])


def camera(n, pan=1.2, turn=0.003, zoom=0.002):
    """The camera of frame n: it pans, rolls and comes nearer."""
    matrix = cv2.getRotationMatrix2D((200, 120), np.degrees(turn * n), 1 + zoom * n)
    matrix[:, 2] -= [80 + pan * n, 60 + 0.2 * n]
    return matrix


def instances(masks) -> Instances:
    masks = np.array([mask for mask in masks if mask.any()], bool).reshape(-1, *SIZE)
    ones = np.ones(len(masks), np.float32)
    return Instances(masks, mask_boxes(masks), 0.8 * ones, ones, ones > 0,
                     np.zeros((len(masks), 0), np.float32))


class Run:
    """Tracker and flow, frame by frame."""

    def __init__(self, **config):
        self.tracker, self.backward = load_tracker(Config(**config)), BackwardFlow()
        self.n = 0

    def see(self, image, masks):
        stamp = self.n * STEP_NS
        self.n += 1
        sample = SyncedInput(stamp, '', None, None, SIZE)
        if image is not None:
            sample = self.backward.attach(
                SyncedInput(stamp, '', Frame(stamp, image), None, SIZE))
        self.backward.answered(sample)
        return self.tracker.update(instances(masks), stamp, sample.flow, sample.flow_error)


def iou(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def stop_and_go(run, go=15, rest=46, again=10, moves=camera):
    """(instances, tracks, true mask) of each frame of one object that pauses."""
    world, answers = World(), []
    thing = world.put()
    x = 140.0
    for n in range(go + rest + again):
        moving = n < go or n >= go + rest
        x += 2.0 * moving
        image, masks = world.view(moves(n), {thing: (x, 110)})
        answers.append((*run.see(image, masks if moving else []), masks[0]))
    return answers


def test_a_stopped_object_keeps_its_id_and_its_mask():
    answers = stop_and_go(Run())
    for n, (found, tracks, mask) in enumerate(answers):
        assert tracks.ids.tolist() == [1] and len(found) == 1
        assert tracks.instance.tolist() == [0]
        assert found.moving.tolist() == [n < 15 or n >= 61]
        assert iou(found.masks[0], mask) >= 0.8  # after 1.5 s of camera motion, too
    held = [answer[0] for answer in answers[15:61]]
    assert all(answer[1].states.tolist() == [STOPPED] for answer in answers[15:61])
    assert all(found.motion_scores.tolist() == [0] for found in held)
    assert all(found.scores == pytest.approx([0.8]) for found in held)
    assert all((found.boxes == mask_boxes(found.masks)).all() for found in held)


def test_without_holding_it_gets_a_new_id():
    answers = stop_and_go(Run(track_hold_s=0.0))
    assert [len(found) for found, _, _ in answers[15:61]] == [0] * 46
    assert answers[-1][1].ids.tolist() == [2]


def test_holding_ends():
    answers = stop_and_go(Run(track_hold_s=0.5))
    shown = [len(found) for found, _, _ in answers[14:61]]
    assert shown == [1] * 16 + [0] * 31  # last seen in frame 14; 15 x 33 ms < 0.5 s
    states = [tracks.states.tolist() for _, tracks, _ in answers[14:61]]
    assert states[16:45] == [[TrackState.LOST]] * 29  # for track_lost_s after it was last shown


def test_hold_time_is_live():
    run = Run()
    world = World()
    thing = world.put()
    for n in range(15):
        image, masks = world.view(camera(n), {thing: (140 + 2 * n, 110)})
        run.see(image, masks)
    assert len(run.see(image, [])[0]) == 1
    run.tracker.configure(Config(track_hold_s=0.0))
    assert len(run.see(image, [])[0]) == 0


def follow(places, after, **config):
    """Answers after an object that took `places` one by one, when nothing is detected any more and
    `after(n)` says what is in view, {thing: place}.
    """
    world, run = World(), Run(**config)
    world.put()
    world.put(seed=8, axes=(30, 24))
    for place in places:
        image, masks = world.view(camera(run.n), {0: place})
        run.see(image, masks)
    answers = []
    for n in range(20):
        image, _ = world.view(camera(run.n), after(n))
        answers.append(run.see(image, []))
    return answers


def test_an_object_that_vanishes_is_not_held():
    answers = follow([(140 + 2 * n, 110) for n in range(15)], lambda n: {})
    assert [len(found) for found, _ in answers] == [0] * 20


def test_an_occluded_object_is_not_held():
    """Something that nobody detected slides over it and covers all of it from frame 14 on."""
    places = [(140 + 2 * n, 110) for n in range(15)]
    answers = follow(places, lambda n: {0: places[-1], 1: (95 + 5 * min(n, 14), 98)})
    assert len(answers[0][0]) == 1
    assert [len(found) for found, _ in answers[14:]] == [0] * 6


def covered(**config):
    """(tracks once it moves again, places shown while it is covered) of an object that stops in
    frame 15, is covered in 18 by what nobody detects, and moves again in 60.
    """
    world, run = World(), Run(**config)
    thing, cover = world.put(), world.put(seed=8, axes=(30, 24))
    shown = 0
    for n in range(66):
        at = 140 + 2 * min(n, 14) + 2 * max(n - 59, 0)
        places = {thing: (at, 110)} | ({cover: (155, 98)} if 18 <= n < 60 else {})
        image, masks = world.view(camera(n), places)
        found, tracks = run.see(image, masks[:1] if n < 15 or n >= 60 else [])
        shown += 20 <= n < 60 and len(found)
    return tracks, shown


@pytest.mark.parametrize('tracker', ['hungarian', 'referring'])
def test_a_stopped_object_that_is_covered_is_known_when_it_moves_again(tracker):
    tracks, shown = covered(tracker=tracker)
    assert tracks.ids.tolist() == [1] and shown == 0
    tracks, _ = covered(tracker=tracker, track_hold_s=1.2)  # at 1.5 s it is forgotten
    assert tracks.ids.tolist() == [2]


def test_a_false_alarm_that_vanishes_is_not_held():
    """It never moved against the wall."""
    answers = follow([(140, 110)] * 15, lambda n: {0: (140, 110)})
    assert [len(found) for found, _ in answers] == [0] * 20


def test_an_object_that_leaves_is_not_held():
    world, run = World(), Run()
    thing = world.put()
    for n in range(30):
        image, masks = world.view(camera(n), {thing: (max(40, 120 - 5 * n), 110)})
        found, _ = run.see(image, masks)
        if masks[0].sum() < 0.2 * 600:
            break
    assert 5 < n < 29
    for later in range(n, n + 10):
        image, masks = world.view(camera(later), {thing: (20, 110)})
        assert len(run.see(image, [])[0]) == 0


def test_an_instance_over_a_held_one_takes_its_pixels():
    world, run = World(), Run()
    still, other = world.put(), world.put(seed=8)
    for n in range(15):
        image, masks = world.view(camera(n), {still: (140 + 2 * n, 110), other: (90, 150)})
        run.see(image, masks)
    shown = []
    for n in range(15, 35):  # the other one passes before the still one
        place = 90 + 4 * (n - 14), 110
        image, masks = world.view(camera(n), {still: (168, 110), other: place})
        found, tracks = run.see(image, masks[other:])
        assert found.masks.sum(0).max() == 1  # disjoint
        ids = dict(zip(tracks.instance.tolist(), tracks.ids.tolist()))
        assert ids[0] != 1 and not found.moving[1:].any()
        shown.append(len(found) == 2)
    assert shown[0] and not all(shown)


def test_crossing_objects_switch_no_more_than_without_flow():
    def switches(flows):
        world, run = World(), Run(track_hold_s=2.0 if flows else 0.0)
        first, second = world.put(axes=(10, 8)), world.put(seed=8, axes=(10, 8))
        last, count = {}, 0
        for n in range(40):
            image, masks = world.view(camera(n), {first: (110 + 3 * n, 110),
                                                  second: (230 - 2 * n, 112)})
            found, tracks = run.see(image if flows else None, masks)
            ids = tracks.instance_ids(len(found))
            for number, mask in enumerate(masks):
                best = max(range(len(found)), key=lambda row: iou(found.masks[row], mask),
                           default=None)
                if best is not None and mask.any() and iou(found.masks[best], mask) > 0.5:
                    count += last.get(number, ids[best]) != ids[best]
                    last[number] = ids[best]
        return count
    assert switches(True) <= switches(False)


def test_without_frames_it_is_held_in_place():
    """A camera at rest sees no events of what stopped."""
    world, run = World(), Run()
    thing = world.put()
    for n in range(15):
        _, masks = world.view(camera(0), {thing: (140 + 2 * n, 110)})
        run.see(None, masks)
    for _ in range(30):
        found, tracks = run.see(None, [])
        assert (found.masks[0] == masks[0]).all() and not found.moving.any()
        assert tracks.ids.tolist() == [1]
    run.n += 20  # a pause: anything may have happened
    assert len(run.see(None, [])[0]) == 0


def test_reset_forgets_what_is_held():
    world, run = World(), Run()
    thing = world.put()
    for n in range(15):
        image, masks = world.view(camera(n), {thing: (140 + 2 * n, 110)})
        run.see(image, masks)
    assert len(run.see(image, [])[0]) == 1
    run.tracker.reset()
    run.backward = BackwardFlow()
    run.n = 0
    found, tracks = run.see(image, [])
    assert len(found) == 0 and len(tracks) == 0
    assert run.see(image, masks)[1].ids.tolist() == [1]


def test_what_is_held_is_no_mover_to_scores_and_messages():
    """`label` 'static', not moving, and no false positive where the truth says nothing moves."""
    found, tracks, mask = stop_and_go(Run(), rest=5, again=0)[-1]
    assert len(found) == 1 and not found.moving.any()
    result = Result(7, '', found, tracks, None, Modality.FRAME, 'truth', 0)
    (row,) = message_fields(result)['instances']
    assert (row['track_id'], row['label'], row['is_moving']) == (1, 'static', False)
    back = read_result(write_result(result))
    assert not back.instances.moving.any() and (back.instances.masks == found.masks).all()
    scorer = Scorer()
    scorer.add(7, mask.astype(np.uint16), set(), found, tracks)
    assert scorer.summary()['strict']['false_positives'] == 0
    assert scorer.summary()['strict']['mIoU'] == 1
    statistics = RunStatistics()
    statistics.add(result)
    assert statistics.intervals_s(0) == []


def test_the_pipeline_holds_what_its_model_no_longer_reports():
    """Also over a failed inference between: the next flow leads to the last answer."""
    world = World()
    thing = world.put()
    model = ScriptedModel()
    pipeline = Pipeline(Config(events_topic=''), model)
    results = []
    for n in range(40):
        moving = n < 15
        image, masks = world.view(camera(n), {thing: (140 + 2 * min(n, 14), 110)})
        model.answer = EngineError('NaN') if n in (20, 21, 22) else instances(
            masks if moving else [])
        stamp = 10**9 + n * STEP_NS
        pipeline.push_frame(Frame(stamp, image), stamp)
        results += [(pipeline.process(sample), masks[0])
                    for sample in pipeline.ready(stamp + 10**9)]
    assert [isinstance(result, Fault) for result, _ in results].count(True) == 3
    for n, (result, mask) in enumerate(results):
        if n not in (20, 21, 22):
            assert result.tracks.ids.tolist() == [1] and 'flow' in result.stage_ms
            assert result.instances.moving.tolist() == [n < 15]
            assert iou(result.instances.masks[0], mask) >= 0.8
    pipeline.reset()
    model.answer = instances([])
    pipeline.push_frame(Frame(10**9, image), 0)
    (sample,) = pipeline.ready(10**9)
    assert len(pipeline.process(sample).instances) == 0


class ScriptedModel:
    """Answers what it was told to."""

    card = SimpleNamespace(id='scripted', surroundings=None, window=None)
    answer = None

    def detect(self, sample, stages):
        if isinstance(self.answer, EngineError):
            raise self.answer
        return self.answer
