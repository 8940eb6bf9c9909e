"""Every setting of a recipe says what it is, beside itself; renamed options name the new one."""

import ast
from pathlib import Path

import pytest

from training.evaluate import main as evaluate

TRAINING = Path(__file__).resolve().parents[2] / 'training'
SUFFIXES = ('Config', 'Settings', 'Weights')
NAMES = {'Recipe', 'Augmentation'}


def settings_classes() -> list[ast.ClassDef]:
    """The classes of settings outside of the scenes."""
    found = []
    for path in sorted(TRAINING.rglob('*.py')):
        if 'scenes' in path.relative_to(TRAINING).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and (
                    node.name.endswith(SUFFIXES) or node.name in NAMES):
                found.append(node)
    return found


@pytest.mark.parametrize('node', settings_classes(), ids=lambda node: node.name)
def test_every_setting_has_a_docstring_below_it(node):
    bare = []
    for field, after in zip(node.body, [*node.body[1:], None]):
        if isinstance(field, ast.AnnAssign):
            documented = (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                          and isinstance(after.value.value, str))
            if not documented:
                bare.append(field.target.id)
    assert not bare


def test_the_known_settings_are_among_them():
    names = {node.name for node in settings_classes()}
    assert {'Recipe', 'DimosConfig', 'LossWeights', 'HomographySettings'} <= names


def test_a_renamed_option_names_the_new_one(capsys):
    with pytest.raises(SystemExit):
        evaluate(['--knobs'])
    assert '--knobs is now --factors' in capsys.readouterr().err
