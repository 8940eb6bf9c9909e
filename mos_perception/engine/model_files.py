"""Where model files are: by name or path; the graphs of a model of several beside each other."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from mos_perception.errors import EngineError

HEAD = '_head'
"""Ends the file's name of the graph that stands for a model of several."""


def find_model(name_or_path: str, kind: str = '') -> Path:
    """The ONNX file of a model name (`dimos_nano`) or path.

    A model of several graphs (`gmos`) is its last one, gmos_head.onnx. `kind`: the folder of
    models/ that it is in. Raises EngineError naming where it looked.
    """
    given = Path(name_or_path).expanduser()
    if given.suffix == '.onnx' or len(given.parts) > 1:
        if not given.is_file():
            raise EngineError(
                f'model file {given} does not exist: give the path of an .onnx file or a model name'
            )
        return given
    folders = [folder / kind for folder in _model_folders()]
    for folder in folders if name_or_path else ():
        for name in (name_or_path, f'{name_or_path}{HEAD}'):
            if (folder / f'{name}.onnx').is_file():
                return folder / f'{name}.onnx'
    known = sorted({path.stem for folder in folders for path in folder.glob('*.onnx')})
    near = difflib.get_close_matches(name_or_path, known, 1)
    hint = f'did you mean {near[0]!r}?' if near else f'known models: {", ".join(known) or "none"}'
    raise EngineError(f'no model {name_or_path!r} in {", ".join(map(str, folders))}: {hint}')


def graph_beside(path: Path, name: str) -> Path:
    """Graph `name` of the model of several whose graph `path` is: files are called MODEL_NAME.

    It need not exist. The name of `path` is of one word, as "head".
    """
    return path.with_name(f'{path.stem.rpartition("_")[0]}_{name}.onnx')


def graphs_of(path: Path) -> list[Path]:
    """All graphs of the model at `path`: that alone, or a head and what lies beside it."""
    if not path.stem.endswith(HEAD):
        return [path]
    names = ('tokens', 'geometry', 'appearance', 'head', 'memory_encoder', 'mask_prompt',
             'mask_from_memory')
    return [part for part in (graph_beside(path, name) for name in names) if part.is_file()]


def _model_folders() -> list[Path]:
    folders = [
        Path(__file__).resolve().parents[2] / 'models',
        Path(sys.prefix) / 'share' / 'mos_perception' / 'models',
    ]
    try:
        from ament_index_python.packages import get_package_share_directory
        folders.append(Path(get_package_share_directory('mos_perception')) / 'models')
    # no ROS here, or the package is not installed into it
    except (ImportError, LookupError, OSError):
        pass
    return folders
