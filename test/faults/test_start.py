"""Nodes that cannot work, or have nothing to work on: each says so and what to do."""

import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from ros_rig import LAST_S
from sensor_msgs.msg import Image

from bench.tiny_model import make_tiny_model
from mos_perception.ros import qos
from mos_perception.ros.process import EXIT_AUTOSTART


@pytest.mark.fault(
    3, 'nothing comes on any topic; a publisher offers less than is asked for',
    'activation succeeds; STALE names the topics, the log the policy that does not match')
def test_fault_03_both_silent_at_start(rig, capfd):
    bench = rig(listen=(), activate=False)
    bench.client.destroy_publisher(bench.images)
    good = TransitionCallbackReturn.SUCCESS
    assert bench.node.trigger_configure() == good and bench.node.trigger_activate() == good
    assert bench.state() == ('STALE', 'nothing on image, events: is the driver running, and does '
                                      'its QoS match (input_reliable)?')
    reports, log = [], []
    bench.client.create_subscription(DiagnosticArray, '/diagnostics', reports.append, 10)
    profile = qos.playback(5)
    profile.reliability = profile.reliability.BEST_EFFORT
    bench.images = bench.client.create_publisher(Image, '/image', profile)

    def said(words):
        log.append(capfd.readouterr().err)
        return words in ''.join(log)
    assert bench.wait(lambda: said('incompatible QoS') and said('RELIABILITY'))
    assert bench.wait(lambda: said('state STALE: nothing on image, events'))
    assert bench.wait(lambda: reports)


@pytest.mark.fault(
    20, 'no GPU, and a backend that needs one',
    'configure fails within 5 s; exit code 1 and one line with the remedy')
def test_fault_20_no_gpu(rig, start, tiny_model):
    bench = rig(activate=False, backend='tensorrt')
    begin = time.monotonic()
    assert bench.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert time.monotonic() - begin < 5
    node = start('ros', '--ros-args', '-p', f'model:={tiny_model}', '-p', 'backend:=tensorrt')
    text, _ = node.communicate(timeout=LAST_S)
    assert node.returncode == EXIT_AUTOSTART == 1
    assert text.count('cannot configure: ') == 1 and 'Traceback' not in text
    assert '"backend: onnxruntime"' in text


@pytest.mark.fault(
    18, 'the model is missing, or its file is not the one that its card describes',
    'configure fails with one line that names file and remedy')
def test_fault_18_model_missing_or_tampered(rig, tmp_path, capfd):
    path = make_tiny_model(tmp_path / 'other.onnx')
    with path.open('ab') as file:
        file.write(b'\0')
    for model, says in (('no_such_model', 'no model'), (str(path), 'restore it or export again')):
        bench = rig(activate=False, model=model)
        assert bench.node.trigger_configure() == TransitionCallbackReturn.FAILURE
        log = capfd.readouterr().err
        assert says in log and 'Traceback' not in log
        assert bench.node.pipeline is None


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


@pytest.mark.fault(
    19, 'a graph with other inputs or outputs than its card says',
    'configure fails and lists both sides')
def test_fault_19_card_of_another_model(rig, tmp_path, capfd):
    path = make_tiny_model(tmp_path / 'other.onnx')
    card = path.with_suffix('.json')
    card.write_text(card.read_text().replace('"mask_logits"', '"mask_logit"'))
    bench = rig(activate=False, model=str(path))
    assert bench.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    log = capfd.readouterr().err
    assert 'mask_logits' in log and 'mask_logit ' in log
