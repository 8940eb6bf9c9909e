"""Nodes that come, go, fail and share a process or a disk with others."""

import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
from ros_rig import FRAME_NS, LAST_S, START_NS, image, packet, wait_until
from sensor_msgs.msg import Image

from mos_msgs.msg import Instances
from mos_perception.ros import qos


@pytest.mark.fault(
    27, 'two cameras, each with its node, in one process',
    'no id, window or counter is shared: each answers as if it were alone')
def test_fault_27_two_nodes_in_one_process(rig):
    left, right = rig(namespace='left'), rig(namespace='right')
    for n in range(4):
        assert left.works_after(n)
    for n in range(3):
        assert right.works_after(n)
    left.node._feed.reset()
    assert right.works_after(3) and left.works_after(4)
    ids = {side: [side.square(message).track_id for message in side.got['instances']]
           for side in (left, right)}
    assert ids[left][:4] == ids[right] and len(set(ids[right])) == 1
    assert [message.epoch for message in left.got['instances']] == [
        *[left.got['instances'][0].epoch] * 4, left.got['instances'][0].epoch + 1]
    assert len({message.epoch for message in right.got['instances']}) == 1
    assert left.counts()['frames'] == 5 and right.counts()['frames'] == 4
    assert left.wait(lambda: left.counts()['results'] == 5 and right.counts()['results'] == 4)


@pytest.mark.fault(
    28, 'the only subscriber vanishes, and one comes back',
    'nothing is inferred meanwhile, each input is counted (`no_subscriber`); then results go on')
def test_fault_28_the_subscriber_vanishes(rig):
    bench = rig()
    assert bench.works_after(0)
    (listener,) = [item for item in bench.client.subscriptions if 'instances' in item.topic_name]
    bench.client.destroy_subscription(listener)
    assert bench.wait(lambda: not bench.node._outputs['instances'].get_subscription_count())
    for n in range(1, 4):
        bench.send(n)
    assert bench.wait(lambda: bench.counts().get('no_subscriber') == 3)
    assert bench.wait(lambda: bench.counts().get('results') == 1)
    assert bench.state() == ('OK', 'ok')
    bench.client.create_subscription(Instances, '/mos_perception/instances',
                                     bench.got['instances'].append, qos.output())
    bench.matched()
    assert bench.works_after(4)
    assert bench.wait(lambda: bench.counts()['frames']
                      == bench.counts()['results'] + bench.counts()['no_subscriber'])


@pytest.mark.fault(
    23, 'NaN in the outputs of the network, three frames in a row',
    'each frame is dropped and counted (`faults`), the third makes the state FAULT; then results '
    'go on')
def test_fault_23_nan_in_the_outputs(rig):
    bench = rig()
    assert bench.works_after(0)
    engine = bench.node.pipeline.model.engine
    real = engine.run

    def broken(inputs):
        outputs = real(inputs)
        outputs['mask_logits'] = np.full_like(outputs['mask_logits'], np.nan)
        return outputs
    engine.run = broken
    for n in range(1, 4):
        bench.send(n)
        assert bench.wait(lambda: bench.counts().get('faults') == n)
    state, reason = bench.state()
    assert state == 'FAULT' and 'mask_logits' in reason and 'NaN' in reason
    assert len(bench.got['instances']) == 1
    engine.run = real
    assert bench.works_after(4) and bench.state()[0] == 'OK'
    first, last = bench.got['instances']
    assert first.epoch == last.epoch


@pytest.mark.fault(
    17, 'events of 160 x 120 px, frames of 80 x 60, nothing said of how they lie over each other',
    'no result: each frame is a fault that names both sizes and the parameter; with '
    '`registration: scale` it works')
def test_fault_17_other_resolutions(rig):
    def send(bench, n):
        stamp = START_NS + (n + 1) * FRAME_NS
        small = image(stamp)
        small.data = small.data[:80 * 60 * 3]
        small.height, small.width, small.step = 60, 80, 240
        bench.packets.publish(packet(n, stamp - FRAME_NS, stamp))
        bench.images.publish(small)
    bench = rig()
    send(bench, 0)
    assert bench.wait(lambda: bench.counts().get('faults') == 1)
    _, reason = bench.state()
    assert re.search(r'\(60, 80\).*\(120, 160\).*registration', reason)
    assert not bench.got['instances']
    bench.close()
    bench = rig(registration='scale')
    send(bench, 0)
    assert bench.wait_results(1) and bench.counts().get('faults', 0) == 0


@pytest.mark.fault(
    30, 'the disk is full while a bag is recorded',
    'the recorder ends with exit code 1, one line and nothing half written; the node goes on')
def test_fault_30_the_disk_is_full(rig, tmp_path):
    bench = rig()
    limit = 200_000  # a file of this process can get no larger: the kernel refuses the rest
    recorder = subprocess.Popen(
        [sys.executable, '-m', 'mos_perception.ros.recorder', '--out', str(tmp_path / 'bag'),
         '/image'], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    try:
        sent = 0

        def full():
            nonlocal sent
            bench.send(sent)
            sent += 1
            time.sleep(0.05)
            return recorder.poll() is not None
        assert bench.wait(full)
    finally:
        recorder.kill()
    text = recorder.stdout.read()
    assert recorder.wait() == 1 and 'Traceback' not in text, text
    assert text.strip().splitlines()[-1].startswith('bag_recorder: ') and 'free space' in text
    assert list(tmp_path.iterdir()) == []
    assert bench.works_after(sent) and bench.state()[0] == 'OK'


@pytest.mark.fault(
    28, 'SIGTERM in the middle of a flood',
    'the process ends within seconds, exit code 0, without a traceback or a process left')
def test_fault_28_shutdown_in_a_flood(ros, start, tiny_model):
    process = start('ros', '--ros-args', '-p', f'model:={tiny_model}', '-p',
                    'force_inference:=true')
    client = rclpy.create_node('feeder')
    images = client.create_publisher(Image, '/image', qos.playback(50))
    assert wait_until(images.get_subscription_count)
    for n in range(100):
        images.publish(image(START_NS + n * FRAME_NS))
        if n == 50:
            process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
    text, _ = process.communicate(timeout=LAST_S)
    assert time.monotonic() - begin < 30, 'bench.shutdown: 2 s on a machine of its own'
    assert process.returncode == 0 and 'Traceback' not in text, text
    client.destroy_node()
