"""gmos.launch.py's node over real DDS with models that see later frames: stamps, delay, reset and
bag loop; the light model, and the published networks, tiny and of random weights.
"""

import importlib.util

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_rig import FRAME_NS, LAST_S, START_NS

from mos_msgs.srv import Reset
from mos_perception.ros import convert

HAS_SAM2 = importlib.util.find_spec('transformers') is not None
DELAY_FRAMES = {'gmos_nano': 4, 'gmos': 7, 'gmos_s': 7}  # at 33 ms
CASES = [('gmos_nano', 'hungarian'), ('gmos_nano', 'propagation_flow'), ('gmos', 'hungarian'),
         ('gmos_s', 'hungarian'), ('gmos', 'propagation_flow'), ('gmos', 'propagation_sam2')]


def send(bench, first, last, held):
    """Frames first to last - 1, each after the answers before it; `held` wait for later ones."""
    had = len(bench.got['instances'])
    for n in range(first, last):
        bench.send(n, events=False)
        assert bench.wait_results(had + max(0, n + 1 - first - held))


def stamps(messages):
    return [(convert.to_ns(message.header.stamp) - START_NS) // FRAME_NS - 1
            for message in messages]


@pytest.mark.parametrize('model, tracker', CASES)
def test_stamps_delay_reset_and_bag_loop(rig, request, model, tracker):
    if tracker == 'propagation_sam2' and not HAS_SAM2:
        pytest.skip('SAM 2.1 needs transformers: pip install -r requirements/gmos.txt')
    path = model if model == 'gmos_nano' else str(request.getfixturevalue('tiny_gmos')(model))
    bench = rig(listen=('instances', 'tracks'), model=path, tracker=tracker, events_topic='',
                backend='onnxruntime', threads=1)
    reports, held = [], DELAY_FRAMES[model]
    bench.client.create_subscription(DiagnosticArray, '/diagnostics', reports.append, 10)

    send(bench, 0, 12, held)
    first = list(bench.got['instances'])
    assert stamps(first) == list(range(12 - held))
    assert {message.header.frame_id for message in first} == {'camera_optical'}
    assert {message.model_id for message in first} == {model}
    waits = [stage.milliseconds for message in first for stage in message.stages
             if stage.name == 'wait']
    assert len(waits) == len(first)
    assert all(0 <= wait - held * FRAME_NS / 1e6 < 5000 for wait in waits)
    assert first[0].degraded and not first[-1].degraded  # the past was missing

    client = bench.client.create_client(Reset, '/mos_perception/reset')
    assert client.wait_for_service(LAST_S)
    future = client.call_async(Reset.Request())
    assert bench.wait(future.done) and future.result().epoch == first[0].epoch + 1
    send(bench, 12, 14 + held, held)  # the frames that waited get no answer
    after = bench.got['instances'][len(first):]
    assert stamps(after) == [12, 13] and {m.epoch for m in after} == {first[0].epoch + 1}
    assert after[0].degraded

    had = len(bench.got['instances'])
    send(bench, -40, -38 + held, held)  # the bag starts again, more than a second back
    again = bench.got['instances'][had:]
    assert stamps(again) == [-40, -39] and {m.epoch for m in again} == {first[0].epoch + 2}
    assert bench.wait(lambda: len(bench.got['tracks']) == len(bench.got['instances']))
    born = [track.id for message in bench.got['tracks'] if message.epoch == again[0].epoch
            for track in message.tracks]
    if model == 'gmos':
        assert born and min(born) == 1
    else:
        assert not born or min(born) == 1
    assert bench.wait(lambda: any(item.key == 'model delay ms' and item.value in ('120.0', '240.0')
                                  for report in reports for item in report.status[0].values))


def test_a_slow_machine_skips_and_counts(rig, tiny_gmos):
    """Frames that come while one is in work; the next one in work is the newest."""
    import threading
    bench = rig(model=str(tiny_gmos('gmos_s')), events_topic='', backend='onnxruntime', threads=1)
    busy, gate, real = threading.Event(), threading.Event(), bench.node.pipeline.process
    bench.node.pipeline.process = lambda item: (busy.set(), gate.wait(LAST_S), real(item))[2]
    for n in range(8):
        bench.send(n, events=False)
    assert busy.wait(LAST_S)
    for n in range(8, 14):
        bench.send(n, events=False)
    assert bench.wait(lambda: bench.counts().get('frames') == 14
                      and bench.counts().get('newer_frame') == 5)
    gate.set()
    assert bench.wait_results(2)
    assert stamps(bench.got['instances']) == [0, 6]
