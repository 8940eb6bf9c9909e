"""The walls and habits of the house, read from the syntax trees of all our files."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = sorted((ROOT / 'mos_perception').rglob('*.py'))
TRAINING = sorted((ROOT / 'training').rglob('*.py'))
BENCH = sorted((ROOT / 'bench').rglob('*.py'))
LAUNCH = sorted((ROOT / 'launch').rglob('*.py'))
TESTS = sorted((ROOT / 'test').rglob('*.py'))
WRITTEN = {'ablation.md', 'levels.md', 'table.md', 'x.md'}  # by commands, wherever they are told to
LIBRARY = RUNTIME + TRAINING + BENCH + LAUNCH + [ROOT / 'setup.py']
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split('.')[0])
    return found


def functions(path: Path) -> list[ast.FunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


def public_definitions(path: Path):
    """Public functions, classes and methods at module or class level."""
    def walk(body, inside_public=True):
        for node in body:
            if (
                isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and not node.name.startswith('_')
                and inside_public
            ):
                yield node
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body)
    yield from walk(ast.parse(path.read_text()).body)


@pytest.mark.parametrize('path', RUNTIME, ids=name)
def test_runtime_stays_behind_its_walls(path):
    found = imports(path)
    inside_ros = 'ros' in path.relative_to(ROOT / 'mos_perception').parts[:1]
    ros = {
        module
        for module in found
        if module in {'rclpy', 'message_filters', 'cv_bridge', 'event_camera_py'}
        or module.endswith(('_msgs', '_interfaces'))
    }
    assert inside_ros or not ros - {'event_camera_py'}, f'{ros} outside mos_perception/ros/'
    assert 'torch' not in found and 'training' not in found
    gpu = found & {'tensorrt', 'tensorrt_rtx', 'pycuda', 'cuda'}
    assert not gpu or name(path) in {'mos_perception/engine/driver_bindings.py',
                                     'mos_perception/engine/driver_pycuda.py',
                                     'mos_perception/engine/kernels.py'}, gpu


@pytest.mark.parametrize('path', LIBRARY, ids=name)
def test_no_assert_outside_tests(path):
    lines = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert not lines


@pytest.mark.parametrize('path', LIBRARY, ids=name)
def test_functions_and_files_are_short(path):
    long = [f'{node.name}: {node.end_lineno - node.lineno + 1}' for node in functions(path)
            if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES]
    assert not long
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize('path', RUNTIME + TRAINING + BENCH, ids=name)
def test_public_names_are_typed_and_documented(path):
    bare = []
    for node in public_definitions(path):
        if not ast.get_docstring(node):
            bare.append(f'{node.name}: no docstring')
        if isinstance(node, ast.FunctionDef):
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            untyped = [
                a.arg for a in arguments if a.annotation is None and a.arg not in ('self', 'cls')
            ]
            if untyped or node.returns is None:
                bare.append(f'{node.name}: untyped {untyped or "return"}')
    assert not bare


def test_no_unguarded_torch_load():
    calls = []
    for path in TRAINING:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) == 'torch.load'
                and not any(
                    word.arg == 'weights_only' and ast.unparse(word.value) == 'True'
                    for word in node.keywords
                )
            ):
                calls.append(name(path))
    assert not calls, 'checkpoints are safetensors: no pickled models'


def test_pipeline_fits_a_screen_or_three():
    assert len((ROOT / 'mos_perception/pipeline.py').read_text().splitlines()) <= 150
    node = ROOT / 'mos_perception/ros/node.py'
    assert not node.exists() or len(node.read_text().splitlines()) <= 250


def test_few_files_at_the_root():
    assert len(list((ROOT / 'mos_perception').glob('*.py'))) <= 12


def modules() -> dict[str, Path]:
    """Module name -> file, of everything but tests and launch files."""
    found = {}
    for path in RUNTIME + TRAINING + BENCH:
        parts = path.relative_to(ROOT).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


def imported_modules(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f'{node.module}.{alias.name}' for alias in node.names}
            found |= {name if name in known else node.module for name in names}
    return found & known.keys()


def test_no_import_circle():
    known = modules()
    left = {module: imported_modules(path, known) - {module} for module, path in known.items()}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert not left, 'these import each other, or what does'


def test_lines_are_short():
    lines = [line for path in LIBRARY + TESTS for line in path.read_text().splitlines()]
    assert sum(len(line) > 100 for line in lines) < 0.01 * len(lines)


@pytest.mark.parametrize('path', LIBRARY + TESTS, ids=name)
def test_no_citation_of_pages_that_are_not_here(path):
    pages = set(re.findall(r'[\w/]+\.md', path.read_text()))
    known = {
        str(page.relative_to(ROOT)) for page in ROOT.rglob('*.md') if '.venv' not in page.parts
    }
    known |= {page.rpartition('/')[2] for page in known}
    assert pages <= known | WRITTEN
