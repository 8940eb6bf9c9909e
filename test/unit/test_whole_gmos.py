"""The published GMOS at run time: which frames it sees, what its outputs become."""

import numpy as np
import pytest

from mos_perception.config import Config
from mos_perception.datatypes import Frame
from mos_perception.engine.model_files import HEAD, find_model, graph_beside, graphs_of
from mos_perception.errors import ConfigError, EngineError
from mos_perception.models.gmos.proposals import above, to_parts, to_proposals
from mos_perception.models.gmos.whole import check_aspect, pi3_size, window_frames
from mos_perception.motion.history import FrameHistory, FrameWindow, longest_wait_ms
from mos_perception.motion.neighbours import Neighbours
from mos_perception.tracking import load_tracker

MS = 1_000_000
WINDOW = FrameWindow()


def frames(rate, count):
    blank = np.zeros((4, 6, 3), np.uint8)
    return [Frame(10**12 + round(n * 1e9 / rate), blank) for n in range(count)]


def seen(rate, at, count, window=WINDOW):
    """The window of frame `at` by the frames' numbers."""
    video = frames(rate, count)
    numbers = {frame.stamp_ns: n for n, frame in enumerate(video)}
    others = tuple(frame for n, frame in enumerate(video) if n != at)
    return [numbers[frame.stamp_ns] for frame in window_frames(video[at], others, window)]


@pytest.mark.parametrize('rate, stride', [(8, 1), (10, 1), (24, 3), (25, 3), (50, 6), (60, 7)])
def test_the_window_is_the_published_one_at_these_rates(rate, stride):
    """group_list_with_stride: [-2s, -s, 0, s, 2s], s = int(fps / 8), clamped at both ends."""
    count = 9 * stride
    for at in range(count):
        wanted = [min(max(at + k * stride, 0), count - 1) for k in (-2, -1, 0, 1, 2)]
        assert seen(rate, at, count) == wanted


def test_the_causal_window_has_the_frame_asked_for_in_the_middle():
    causal = FrameWindow(centred=False)
    assert seen(24, 20, 30, causal) == [8, 11, 20, 14, 17]
    assert seen(24, 4, 30, causal) == [0, 0, 4, 0, 1]


def test_window_is_checked():
    with pytest.raises(ConfigError, match='stride_ms is 0: must be in'):
        FrameWindow(0)


@pytest.mark.parametrize('rate', [10, 24, 30, 60])
def test_the_delay_is_fixed(rate):
    """Every frame is answered at the first one that is two strides later, to half a period."""
    history, waits = FrameHistory(FrameWindow()), []
    for frame in frames(rate, 4 * rate):
        waits += [(frame.stamp_ns - done.stamp_ns) / MS for done, _ in history.push(frame)]
    assert history.delay_ms == 240
    assert max(waits) - min(waits) < 1e-3 and abs(waits[0] - 240) <= 500 / rate + 1e-3
    assert waits[0] <= longest_wait_ms(history.spec)


def test_a_causal_window_waits_for_nothing():
    neighbours = Neighbours(FrameWindow(centred=False))
    assert neighbours.delay_ms == 0
    history = FrameHistory(FrameWindow(centred=False))
    assert all(history.push(frame)[0][0] is frame for frame in frames(30, 40))


@pytest.mark.parametrize('frame, wanted', [((480, 854), (378, 672)), ((720, 1280), (378, 672)),
                                           ((1080, 1920), (378, 672)), ((480, 640), (434, 574))])
def test_pi3_sees_the_published_sizes(frame, wanted):
    assert pi3_size(frame) == wanted
    check_aspect(frame, wanted)


def test_frames_of_another_shape_are_refused_with_the_size_to_import():
    with pytest.raises(EngineError, match='--image-size 434 574'):
        check_aspect((480, 640), (378, 672))


def outputs():
    """Four queries on 4x4 maps: two on the left that overlap, one at rest, one empty."""
    masks = np.full((1, 4, 4, 4), -8.0, np.float32)
    masks[0, 0, :, :2], masks[0, 1, :2, :3], masks[0, 2, 2:, 3] = 4, 6, 8
    return {'mask_logits': masks, 'motion_logits': np.float32([[3, 1, -2, 2]]),
            'quality': np.float32([[[0.9, 1], [0.8, 1], [0.95, 1], [1.4, 1]]]),
            'embeddings': np.arange(8, dtype=np.float32).reshape(1, 4, 2)}


def test_proposals_share_the_pixels_out_and_keep_those_at_rest():
    found = to_proposals(outputs(), (4, 4), 20)
    assert found.embeddings.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert [int(mask.sum()) for mask in found.masks] == [4, 6, 2] and found.masks.sum(0).max() == 1
    motion = 1 / (1 + np.exp(-np.array([3, 1, -2])))
    np.testing.assert_allclose(found.motion_scores, motion, rtol=1e-6)
    np.testing.assert_allclose(found.scores, motion * [0.9, 0.8, 0.95], rtol=1e-6)
    assert found.moving.tolist() == [True, True, False]
    assert found.boxes.tolist() == [[0, 2, 2, 4], [0, 0, 3, 2], [3, 2, 4, 4]]
    published = above(found, 0.6)
    assert len(published) == 1 and published.embeddings.tolist() == [[0, 1]]


def test_only_the_queries_most_likely_to_move_are_looked_at():
    found = to_proposals(outputs(), (4, 4), 2)
    assert found.embeddings.tolist() == [[0, 1]] and int(found.masks.sum()) == 8


def test_nothing_and_what_is_not_finite():
    given = outputs()
    given['mask_logits'][:] = -1
    empty = to_proposals(given, (6, 8), 20)
    assert len(empty) == 0 and empty.size == (6, 8) and empty.embeddings.shape == (0, 2)
    for name in ('mask_logits', 'motion_logits', 'quality', 'embeddings'):
        given = outputs()
        given[name].flat[0] = np.nan
        with pytest.raises(EngineError, match=f'{name} has'):
            to_proposals(given, (4, 4), 20)


def test_a_map_becomes_parts():
    """Enlarged as logits, as published: the edge lies where they cross 0."""
    logits = np.full((1, 1, 8, 8), -1.0, np.float32)
    logits[0, 0, :, :2], logits[0, 0, :, 5:] = 3, 1
    found = to_parts({'foreground_logits': logits}, (16, 16), 0.5, 20)
    assert len(found) == 2 and found.moving.all()
    assert sorted(box.tolist() for box in found.boxes) == [[0, 0, 4, 16], [10, 0, 16, 16]]


def test_a_model_of_several_graphs_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr('mos_perception.engine.model_files._model_folders', lambda: [tmp_path])
    for part in ('tokens', 'head', 'memory_encoder'):
        (tmp_path / f'whole{"_" + part}.onnx').write_bytes(b'')
    head = tmp_path / f'whole{HEAD}.onnx'
    assert find_model('whole') == head and graph_beside(head, 'tokens').is_file()
    assert [path.stem for path in graphs_of(head)] == ['whole_tokens', 'whole_head',
                                                       'whole_memory_encoder']
    (tmp_path / 'whole.onnx').write_bytes(b'')
    assert find_model('whole') == tmp_path / 'whole.onnx' == graphs_of(find_model('whole'))[0]


def test_sam2_as_a_tracker_needs_its_graphs_and_frames():
    with pytest.raises(EngineError, match='"mos import sam2" makes it'):
        load_tracker(Config(tracker='propagation_sam2'))
    with pytest.raises(EngineError, match='needs frames'):
        load_tracker(Config(tracker='propagation_sam2', image_topic=''))
