"""A node that is told to end: whatever it does, within 2 s and with exit code 0."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.shutdown import SEGMENTS, mapped_segments
from mos_perception.ros.transport import SHARED_MEMORY

ROOT = Path(__file__).resolve().parents[2]
# what the node is busy with when the signal comes; each says so and then takes ten minutes
BUSY = {
    'configuring': ('pipeline', 'Pipeline.__init__'),
    'inferring': ('pipeline', 'Pipeline.process'),
    'activating': ('ros.inputs', 'Inputs.open'),
}
CODE = '''
import sys, time
import mos_perception.{module} as module
from mos_perception.ros import node

def busy(*_, **__):
    print('BUSY', file=sys.stderr, flush=True)
    time.sleep(600)
module.{name} = busy
{more}
sys.exit(node.main(sys.argv[1:]))
'''
# an input for the worker, without a publisher
OFFER = '''
from mos_perception.datatypes import SyncedInput
from mos_perception.ros.feed import Feed
plain = Feed.__init__
def begin(self, *given):
    plain(self, *given)
    self._worker.offer(SyncedInput(0, '', None, None, (120, 160), epoch=self._pipeline.epoch))
Feed.__init__ = begin
'''


IMPORTING = '''
import sys, time, types
class Loader:
    def find_spec(self, name, *_):
        if name == 'mos_perception.ros.node':
            try:
                print('BUSY', file=sys.stderr, flush=True)
                time.sleep(600)
            except BaseException:  # as some libraries do
                time.sleep(600)
sys.meta_path.insert(0, Loader())
from mos_perception.ros.__main__ import main
main()
'''


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_lost_in_an_import(number):
    process = subprocess.Popen([sys.executable, '-c', IMPORTING], stderr=subprocess.PIPE, text=True,
                               env={**os.environ, 'PYTHONPATH': str(ROOT)})
    try:
        assert process.stderr.readline() == 'BUSY\n'
        process.send_signal(number)
        assert process.wait(60) == -number
        assert process.stderr.read() == ''
    finally:
        process.kill()


@pytest.mark.fault(28, 'SIGINT or SIGTERM while it configures, activates or infers',
                   'cut off in time, exit code 0, no traceback')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('what', BUSY)
def test_a_busy_node_ends(tiny_model, what, number):
    module, name = BUSY[what]
    code = CODE.format(module=module, name=name, more=OFFER if what == 'inferring' else '')
    process = subprocess.Popen(
        [sys.executable, '-c', code, '--ros-args', '-p', f'model:={tiny_model}'],
        stderr=subprocess.PIPE, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    try:
        lines = []
        while 'BUSY\n' not in lines[-1:]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        process.send_signal(number)
        start = time.monotonic()
        text = process.stderr.read()
        assert process.wait(60) == 0, text
        assert time.monotonic() - start < 30, 'far under what it is busy with; bench.shutdown: 2 s'
        assert 'Traceback' not in text and 'cannot' not in text
    finally:
        process.kill()


@pytest.mark.fault(28, 'SIGINT or SIGTERM of an active node',
                   'its shared memory goes with it')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_ended_node_leaves_no_shared_memory(tiny_model, number):
    before = set(SHARED_MEMORY.glob(SEGMENTS))  # of this process: the node maps it to read from it
    process = subprocess.Popen(
        [sys.executable, '-m', 'mos_perception.ros', '--ros-args', '-p', f'model:={tiny_model}'],
        stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        while not any('active: ' in line for line in lines):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        segments = mapped_segments(process.pid) - before
        assert segments, 'Fast DDS with the profile of config/ maps one'
        process.send_signal(number)
        text = process.stderr.read()
        assert process.wait(60) == 0, text
        assert not [path for path in segments if path.exists()]
    finally:
        process.kill()
