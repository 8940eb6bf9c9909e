"""Where metrics go: means in metrics.jsonl, a bar on a terminal, lines elsewhere, silence from the other processes."""

import functools
import io
import json

import pytest
from rich.console import Console

from training import metrics_logger
from training.metrics_logger import MetricsLogger


@pytest.mark.parametrize('terminal', [True, False])
def test_means_of_the_steps_since_the_last_line(tmp_path, monkeypatch, terminal):
    screen = io.StringIO()
    monkeypatch.setattr(metrics_logger, 'Console', functools.partial(Console, file=screen, force_terminal=terminal, width=160))
    with MetricsLogger(tmp_path, 'tiny', 10) as logger:
        assert not logger.due(10, 0)  # nothing happened yet
        logger.add(11, 0.25, {'loss': 3.0, 'dice': 1.0})
        logger.add(12, 0.5, {'loss': 1.0, 'dice': 0.5})
        assert logger.due(12, 0) and not logger.due(12, 3600)
        assert logger.write(12, 0.5, 60.0, learning_rate=1e-3, batch=8,
                            pace={'rendered_per_s': 9.5}) == {'loss': 2.0, 'dice': 0.75}
        logger.add(13, 1.0, {'loss': 7.0})
        assert logger.write(13, 1.0, 120.0, learning_rate=1e-4, batch=8, pace={}) == {'loss': 7.0}
    first, second = map(json.loads, (tmp_path / 'metrics.jsonl').read_text().splitlines())
    assert (first['step'], first['loss'], first['rendered_per_s'], second['done']) == (12, 2.0, 9.5, 1.0)
    assert list(tmp_path.glob('events.out.tfevents.*'))
    shown = screen.getvalue()
    assert 'step 12  50.0 %  1.0 min left' in shown and 'loss 2.0000  dice 0.7500' in shown
    assert ('━' in shown) == terminal


def test_other_processes_write_nothing(tmp_path, capsys):
    with MetricsLogger(tmp_path, 'tiny', 0, active=False) as logger:
        logger.add(1, 0.5, {'loss': 1.0})
        assert not logger.due(1, 0)
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ''
