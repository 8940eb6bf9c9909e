"""A GPU that fails under the running node: a process of its own, the kernels' source on the CPU and
a driver that fails as told (test/shim).
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rclpy
from ros_rig import FRAME_NS, START_NS, image, packet
from sensor_msgs.msg import Image
from shim_driver import compile_shim

from mos_msgs.msg import Instances
from mos_perception.ros import qos
from mos_perception.ros.process import EXIT_DEVICE_LOST

SHIM = Path(__file__).parents[1] / 'shim'
pytestmark = pytest.mark.skipif(
    shutil.which('g++') is None, reason='g++ is not installed: it compiles the kernels')


@pytest.fixture(scope='module')
def library(tmp_path_factory):
    return compile_shim(tmp_path_factory.mktemp('shim') / 'kernels.so')


@pytest.fixture
def play(ros, library, tiny_model):
    """`play(codes, until)`: a node whose driver fails so, fed until `until(process, results)`."""
    running = []

    def run(codes, until, last_s=120):
        process = subprocess.Popen(
            [sys.executable, str(SHIM / 'faulty_node.py'), str(library), codes, '--ros-args',
             '-p', f'model:={tiny_model}', '-p', 'deadline_s:=0.01', '-p', 'input_reliable:=true'],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(SHIM), *sys.path[1:]])})
        running.append(process)
        client, found = rclpy.create_node('feeder'), []
        client.create_subscription(Instances, '/mos_perception/instances', found.append,
                                   qos.output())
        images = client.create_publisher(Image, '/image', qos.playback(5))
        packets = client.create_publisher(type(packet(0, START_NS, START_NS + FRAME_NS)),
                                          '/events', qos.playback(5))
        end, n = time.monotonic() + last_s, 0
        while time.monotonic() < end and not until(process, found):
            if images.get_subscription_count() and packets.get_subscription_count():
                stamp = START_NS + (n + 1) * FRAME_NS
                packets.publish(packet(n, stamp - FRAME_NS, stamp))
                images.publish(image(stamp))
                n += 1
            rclpy.spin_once(client, timeout_sec=0.05)
        client.destroy_node()
        return process, found
    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.fault(22, 'an illegal address: the GPU is lost to the process (fake driver)',
                   'FAULT, one line, exit code 70 for the supervisor; never tried again here')
def test_a_lost_device_ends_the_process_with_its_exit_code(play):
    process, found = play('0,0,0,0,700', lambda process, _: process.poll() is not None)
    assert process.wait() == EXIT_DEVICE_LOST == 70
    log = process.stdout.read()
    assert found and 'only a new process can use it again' in log
    assert log.count('ends with exit code 70') == 1 and 'Traceback' not in log


@pytest.mark.fault(21, 'a failed call and full GPU memory in a running node (fake driver)',
                   'costs its frame, counted (`faults`); the next is tried; three in a row: FAULT')
def test_one_failed_call_does_not(play):
    process, found = play('0,0,0,1,0,2', lambda _, found: len(found) >= 8)
    assert len(found) >= 8 and process.poll() is None
    process.terminate()
    assert process.wait(30) == 0
    log = process.stdout.read()
    assert 'inference failed: CUDA: cuStreamSynchronize failed with code 1' in log
