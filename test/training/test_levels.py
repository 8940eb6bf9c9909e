"""The named levels change one factor at a time, all render, and keep their promise to the
baselines."""

import ast
import inspect
import json
import textwrap
from dataclasses import fields, replace

import numpy as np
import pytest

from mos_perception.errors import ConfigError
from training import levels
from training.levels import score_preset, static_motion, verdict
from training.scenes import PRESETS, cache, render_clip
from training.scenes.presets import FACTORS, find_preset
from training.scenes.settings import EventSensor, Preset
from training.scenes.world import build_world


def differences(a, b):
    return {field.name for field in fields(Preset)
            if getattr(a, field.name) != getattr(b, field.name)} - {'name'}


@pytest.mark.parametrize('factor', FACTORS)
def test_a_level_differs_from_mid_in_its_own_factor_only(factor):
    for level, settings in (('easy', FACTORS[factor][0]), ('hard', FACTORS[factor][2])):
        preset = PRESETS[f'{factor}-{level}']
        changed = differences(preset, PRESETS['mid'])
        assert changed and changed <= set(settings)
        assert all(getattr(preset, field) == value for field, value in settings.items())


def test_the_table_of_the_specification():
    easy, mid, hard = (PRESETS[name] for name in ('easy', 'mid', 'hard'))
    assert [preset.area for preset in (easy, mid, hard)] == [
        (0.03, 0.12),
        (0.006, 0.03),
        (0.0005, 0.006),
    ]
    assert [preset.moving_objects for preset in (easy, mid, hard)] == [(1, 2), (3, 5), (6, 8)]
    assert [preset.distractors for preset in (easy, mid, hard)] == [(0, 0), (3, 3), (8, 8)]
    assert [preset.object_speed for preset in (easy, mid, hard)] == [
        (0.6, 1.5),
        (0.15, 0.6),
        (0.03, 0.15),
    ]
    assert [preset.light for preset in (easy, mid, hard)] == [(1, 1), (0.2, 0.2), (0.03, 0.03)]
    assert [preset.exposure_s[0] for preset in (easy, mid, hard)] == [0.001, 0.008, 0.02]
    assert [preset.camouflage for preset in (easy, mid, hard)] == [0, 0.2, 0.6]
    assert hard.sensor == replace(mid.sensor, shot_hz=(1, 5), cutoff_hz=(30, 30))


@pytest.mark.parametrize('name, camera, parallax',
                         [('easy', (0, 0), (0, 0)), ('mid', (0.5, 1.5), (0.5, 2)),
                          ('camera-easy', (0, 0), (0, 0)), ('camera-hard', (2, 6), (0.5, 2)),
                          ('parallax-easy', (0.5, 1.5), (0, 1e-9)),
                          ('parallax-hard', (0.5, 1.5), (2, 6)), ('hard', (2, 6), (2, 6))])
def test_camera_motion_and_parallax_are_what_the_table_says(name, camera, parallax):
    preset = find_preset(name)
    moves = np.concatenate([static_motion(build_world(preset, seed, 'val'), preset)
                            for seed in range(30)])
    median = (
        np.median(moves[:, 0]) / preset.size[1] * 100,
        np.median(moves[:, 1]) / preset.size[1] * 160,
    )
    assert camera[0] <= median[0] <= camera[1] + 1e-9
    assert parallax[0] <= median[1] <= parallax[1] + 1e-9


@pytest.mark.parametrize('name', PRESETS)
def test_every_preset_renders(name):
    preset = find_preset(name, duration_s=2 / PRESETS[name].fps, size=(60, 80), dropped_frames=0.0)
    clip = render_clip(preset, 1, 'val')
    assert clip.frames.shape == (2, 60, 80, 3) and (len(clip.events) > 0) == preset.events
    assert clip.moving.shape[1] - 1 >= preset.distractors[0]
    assert clip.frames.std() > 1


def test_easy_is_solvable_and_mid_is_not():
    easy, mid = score_preset('easy', 3), score_preset('mid', 3)
    assert max(score[0] for score in easy.scores.values()) > 0.5
    assert max(score[0] for score in mid.scores.values()) < 0.5


@pytest.mark.parametrize('name, best, said', [('easy', 0.61, 'holds'), ('easy', 0.6, 'MISSED'),
                                              ('mid', 0.39, 'holds'), ('area-hard', 0.4, 'MISSED'),
                                              ('hard', 0.1, 'holds'), ('area-easy', 0.9, ''),
                                              ('like-sevd', 0.1, '')])
def test_verdict(name, best, said):
    assert verdict(name, best) == said


def test_the_command_writes_the_page(tmp_path, capsys):
    files = tmp_path / 'levels.json', tmp_path / 'levels.md'
    assert levels.main(['--presets', 'easy', '--clips', '1', '--frames', '2', '--json',
                        str(files[0]), '--write', str(files[1])]) == 0
    row = json.loads(files[0].read_text())['rows'][0]
    assert row['preset'] == 'easy' and set(row['scores']) == {'homography', 'mog2', 'events'}
    page = files[1].read_text()
    assert '| easy |' in page and '{' not in page and '| easy |' in capsys.readouterr().out


def test_old_names_say_what_they_are_called_now(capsys):
    with pytest.raises(ConfigError, match='"hiding-hard" is called "occlusion-hard" now'):
        find_preset('hiding-hard')
    with pytest.raises(ConfigError, match='no field movers: it is moving_objects now'):
        find_preset('mid', movers=(1, 1))
    with pytest.raises(ConfigError, match='no field look_alikes: it is distractors now'):
        find_preset('mid', look_alikes=(1, 1))
    with pytest.raises(SystemExit):
        cache.main(['--preset', 'hiding-easy'])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert '"hiding-easy" is called "occlusion-easy" now' in said


def test_every_setting_says_what_it_is():
    """A string after each field, as the documentation of settings is written here."""
    for kind in (Preset, EventSensor):
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
        for field, after in zip(body, body[1:] + [None]):
            if isinstance(field, ast.AnnAssign):
                text = isinstance(after, ast.Expr) and after.value.value
                assert isinstance(text, str), field.target.id
