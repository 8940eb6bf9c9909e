"""Bad input: each has one counted reason, the node lives, and the next good input works."""

import importlib.util
import threading
import time
from array import array

import pytest
from dvs_msgs.msg import Event, EventArray
from rclpy.lifecycle import TransitionCallbackReturn
from ros_rig import LAST_S

from bench.tiny_model import make_tiny_model
from mos_perception.ros import convert


def works_after(bench, n: int) -> bool:
    """A good packet and frame number n give a result."""
    before = len(bench.got['instances'])
    bench.send(n)
    return bench.wait_results(before + 1)


@pytest.mark.parametrize(
    'changes',
    [
        {'encoding': 'what'},
        {'step': 7},
        {'data': array('B', bytes(10))},
        {'height': 0},
        {'width': 5_000_000},
    ],
)
def test_bad_frames(rig, changes):
    bench = rig()
    bench.images.publish(bench.image(bench.START_NS + bench.FRAME_NS // 2, **changes))
    assert bench.wait(lambda: bench.counts().get('bad_frame') == 1)
    assert works_after(bench, 0)
    assert bench.counts()['frames'] == 2 and bench.counts()['results'] == 1


def test_frame_size_change(rig):
    bench = rig()
    assert works_after(bench, 0)
    small = convert.image_message(
        convert.Header(stamp=convert.to_stamp(bench.START_NS + 2 * bench.FRAME_NS)),
        convert.frame(bench.image(0)).image[::2, ::2].copy(),
    )
    bench.images.publish(small)
    assert bench.wait(lambda: bench.counts().get('size_changed') == 1)
    assert works_after(bench, 2)


def test_out_of_order_and_duplicate_frames(rig):
    bench = rig()
    assert works_after(bench, 2)
    bench.images.publish(bench.image(bench.START_NS + 3 * bench.FRAME_NS))
    bench.images.publish(bench.image(bench.START_NS + 2 * bench.FRAME_NS))
    assert bench.wait(
        lambda: bench.counts().get('duplicate') == 1 and bench.counts().get('out_of_order') == 1
    )
    assert works_after(bench, 3)


def test_clock_jump_back_by_stamps(rig):
    bench = rig()
    for n in (0, 40, 41):
        assert works_after(bench, n)
    epoch = bench.got['instances'][-1].epoch
    for n in (0, 1):
        bench.send(n)
    assert bench.wait(lambda: bench.got['instances'][-1].epoch == epoch + 1)
    assert (
        convert.to_ns(bench.got['instances'][-1].header.stamp)
        <= bench.START_NS + 2 * bench.FRAME_NS
    )
    assert works_after(bench, 2) and bench.got['instances'][-1].epoch == epoch + 1


def test_sequence_gap(rig):
    bench = rig()
    assert works_after(bench, 0)
    stamp = bench.START_NS + 2 * bench.FRAME_NS
    bench.packets.publish(bench.packet(5, stamp - bench.FRAME_NS, stamp))
    bench.images.publish(bench.image(stamp))
    assert bench.wait_results(2)
    assert bench.counts()['packet_gap'] == 4
    assert (
        bench.got['instances'][1].degraded
        and '4 event packets lost' in bench.got['instances'][1].degraded_reason
    )


@pytest.mark.parametrize(
    'changes, reason',
    [
        ({'encoding': 'aps'}, 'bad_packet'),
        ({'is_bigendian': True}, 'bad_packet'),
        ({'width': 0}, 'bad_packet'),
    ],
)
def test_bad_first_packet(rig, changes, reason):
    bench = rig()
    bench.packets.publish(bench.packet(0, bench.START_NS - 1000, bench.START_NS, **changes))
    assert bench.wait(lambda: bench.counts().get(reason, 0) >= 1), bench.counts()
    assert works_after(bench, 0)


@pytest.mark.parametrize('changes, reason', [
    ({'encoding': 'mono'}, 'encoding_changed'), ({'width': 80}, 'size_changed')])
def test_packet_changes_mid_stream(rig, changes, reason):
    bench = rig()
    assert works_after(bench, 0)
    stamp = bench.START_NS + bench.FRAME_NS
    bench.packets.publish(bench.packet(1, stamp, stamp + 1_000_000, **changes))
    assert bench.wait(lambda: bench.counts().get(reason) == 1), bench.counts()
    assert works_after(bench, 1) or works_after(bench, 2)


def test_truncated_packet(rig):
    bench = rig()
    assert works_after(bench, 0)
    stamp = bench.START_NS + bench.FRAME_NS
    cut = bench.packet(1, stamp, stamp + 1_000_000)
    cut.events = cut.events[:-3]
    bench.packets.publish(cut)
    assert bench.wait(lambda: bench.counts().get('bad_packet') == 1), bench.counts()
    assert works_after(bench, 2)


def test_empty_and_one_event_windows(rig):
    bench = rig()
    for n, count in enumerate((0, 1)):
        stamp = bench.START_NS + (n + 1) * bench.FRAME_NS
        bench.packets.publish(bench.packet(n, stamp - bench.FRAME_NS, stamp, count=count))
        bench.images.publish(bench.image(stamp))
        assert bench.wait_results(n + 1), bench.counts()
        assert bench.got['instances'][n].event_count == count


def test_exception_in_a_callback(rig):
    bench = rig()
    real = bench.node.pipeline.push_frame

    def broken(*_: object) -> None:
        raise ZeroDivisionError('a bug')
    bench.node.pipeline.push_frame = broken
    bench.send(0)
    assert bench.wait(lambda: bench.counts().get('exception') == 1)
    bench.node.pipeline.push_frame = real
    assert works_after(bench, 1)


def test_frames_dropped_before_the_node_are_counted(rig):
    bench = rig(events_topic='')
    bench.send(0, events=False)
    assert bench.wait_results(1)  # counting starts with the first frame seen
    sent, real = threading.Event(), bench.node.pipeline.push_frame

    def slow(*arguments: object) -> list:
        sent.wait(LAST_S)
        time.sleep(0.05)
        return real(*arguments)
    bench.node.pipeline.push_frame = slow
    for n in range(1, 40):
        bench.send(n, events=False)
    sent.set()
    assert bench.wait(lambda: bench.counts()['frames'] + bench.counts().get('lost_frames', 0) == 40)
    assert bench.counts()['lost_frames'] > 0
    bench.node.pipeline.push_frame = real


def test_exception_in_the_worker(rig):
    bench = rig()
    real = bench.node.pipeline.process
    bench.node.pipeline.process = lambda pair: 1 / 0
    bench.send(0)
    assert bench.wait(lambda: bench.counts().get('exception') == 1)
    bench.node.pipeline.process = real
    assert works_after(bench, 1)


def test_event_arrays(rig):
    bench = rig(events_type='event_array')
    stamp = bench.START_NS + bench.FRAME_NS
    message = EventArray(height=bench.HEIGHT, width=bench.WIDTH)
    message.events = [
        Event(
            x=40 + n % 40, y=50, polarity=True, ts=convert.to_stamp(bench.START_NS + n * 1_000_000)
        )
        for n in range(40)
    ]
    bench.packets.publish(message)
    bench.images.publish(bench.image(stamp))
    assert bench.wait_results(1)
    assert bench.got['instances'][0].event_count == 33


@pytest.mark.parametrize('parameters, says', [
    ({'model': 'no_such_model'}, 'no model'),
    ({'backend': 'tensorrt'}, 'tensorrt'),
    ({'image_topic': '', 'events_topic': ''}, 'both empty'),
])
def test_configure_fails_with_one_line(rig, capfd, parameters, says):
    bench = rig(activate=False, **parameters)
    assert bench.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    log = capfd.readouterr().err
    assert says in log and 'Traceback' not in log
    assert bench.node.pipeline is None


def test_card_of_another_model(rig, tmp_path, capfd):
    path = make_tiny_model(tmp_path / 'other.onnx')
    card = path.with_suffix('.json')
    card.write_text(card.read_text().replace('"mask_logits"', '"mask_logit"'))
    bench = rig(activate=False, model=str(path))
    assert bench.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    log = capfd.readouterr().err
    assert 'mask_logits' in log and 'mask_logit ' in log


@pytest.mark.skipif(
    importlib.util.find_spec('message_filters') is not None,
    reason='message_filters is installed here',
)
def test_approximate_without_message_filters(rig, capfd):
    bench = rig(activate=False, sync_policy='approximate')
    assert bench.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert 'message_filters, which is not installed' in capfd.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec('message_filters') is None,
                    reason='message_filters comes with a ROS distribution')
def test_approximate_pairs_by_header_stamp(rig):
    bench = rig(activate=False, sync_policy='approximate')
    assert bench.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert bench.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    kind = type(bench.image(0))
    assert bench.wait(
        lambda: bench.packets.get_subscription_count() and bench.images.get_subscription_count()
    )
    counts = kind(height=bench.HEIGHT, width=bench.WIDTH, encoding='8UC2', step=2 * bench.WIDTH,
                  data=array('B', bytes([1]) * (2 * bench.WIDTH * bench.HEIGHT)))
    counts.header.stamp = convert.to_stamp(bench.START_NS + 1_000_000)
    bench.packets.publish(counts)
    bench.images.publish(bench.image(bench.START_NS))
    assert bench.wait_results(1)
    assert bench.got['instances'][0].event_count == 2 * bench.WIDTH * bench.HEIGHT
