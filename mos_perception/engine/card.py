"""The model card: what a model file needs, gives and is, in JSON beside the file.

`dimos_nano.onnx` has its card in `dimos_nano.json`. A model without a card, with another
card's file, or with a graph that differs from its card is refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mos_perception.engine.interface import Engine, TensorSpec
from mos_perception.errors import ConfigError, EngineError
from mos_perception.motion.evidence import EvidenceSpec
from mos_perception.motion.flow import FlowSettings
from mos_perception.motion.history import FrameWindow


@dataclass(frozen=True)
class ImageSpec:
    """Normalisation of RGB in [0, 1]: (value - mean) / std, three numbers each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class VoxelSpec:
    """The arguments of `events.voxel.voxelize` this network was trained with; `compensated`: events
    are first moved along the static scene's motion.
    """

    formulation: str
    bins: int
    normalise: str
    norm_floor: float
    resize: str
    compensated: bool = False


@dataclass(frozen=True)
class WindowSpec:
    """Which events belong to a frame: `side` of its stamp, 'before' or 'after', and how long in ms.
    """

    side: str
    length_ms: float


@dataclass(frozen=True)
class PostprocessSpec:
    """Defaults the scores of the card were measured with."""

    top_k: int
    score_threshold: float


@dataclass(frozen=True)
class ModelCard:
    """Everything the runtime and a reader must know of a model file.

    `voxel` and `window` are None for models that take no events, `evidence` for those that take no
    motion evidence; `frames` of those that see whole frames around each. `data_sha256` is that of
    `file`.data, where the weights lie beside the graph.
    """

    id: str
    architecture: str
    file: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    image: ImageSpec
    voxel: VoxelSpec | None
    window: WindowSpec | None
    postprocess: PostprocessSpec
    training: dict[str, Any]
    scores: dict[str, Any]
    licence: str
    evidence: EvidenceSpec | None = None
    data_sha256: str | None = None
    frames: FrameWindow | None = None

    @property
    def surroundings(self) -> EvidenceSpec | FrameWindow | None:
        """Which frames around each the model needs; None: no others."""
        return self.evidence or self.frames

    def __post_init__(self) -> None:
        """Check the values. Raises EngineError."""
        digests = {'sha256': self.sha256}
        if self.data_sha256 is not None:
            digests['data_sha256'] = self.data_sha256
        checks = [
            *(
                (
                    name,
                    value,
                    len(value) == 64 and not set(value) - set('0123456789abcdef'),
                    '64 lower-case hex digits',
                )
                for name, value in digests.items()
            ),
            ('image.mean', self.image.mean, len(self.image.mean) == 3, 'three numbers'),
            (
                'image.std',
                self.image.std,
                len(self.image.std) == 3 and min(self.image.std) > 0,
                'three numbers > 0',
            ),
            (
                'postprocess.top_k',
                self.postprocess.top_k,
                1 <= self.postprocess.top_k <= 65535,
                'in [1, 65535]',
            ),
            (
                'postprocess.score_threshold',
                self.postprocess.score_threshold,
                0 <= self.postprocess.score_threshold <= 1,
                'in [0, 1]',
            ),
        ]
        if self.voxel is not None:
            checks.append(('voxel.bins', self.voxel.bins, self.voxel.bins >= 1, '>= 1'))
        if self.window is not None:
            checks += [
                (
                    'window.side',
                    self.window.side,
                    self.window.side in ('before', 'after'),
                    "'before' or 'after'",
                ),
                (
                    'window.length_ms',
                    self.window.length_ms,
                    0 < self.window.length_ms <= 10_000,
                    'in (0, 10000] ms',
                ),
            ]
        for name, value, good, limit in checks:
            if not good:
                raise EngineError(f'model card {self.id!r}: {name} is {value!r}: must be {limit}')


def load_card(onnx_path: Path) -> ModelCard:
    """The card beside `onnx_path`, with the sha256 of the model file and of its `.data` verified.

    Raises EngineError.
    """
    onnx_path = Path(onnx_path)
    where, values = read_card(onnx_path)
    card = build_card(ModelCard, values, where)
    wanted = {onnx_path: card.sha256}
    if card.data_sha256 is not None:
        wanted[data_file(onnx_path)] = card.data_sha256
    for file, digest in wanted.items():
        actual = sha256_of(file)
        if actual != digest:
            raise EngineError(
                f'model file {file} has sha256 {actual}, its card says {digest}: '
                'the file is damaged or not the one described; restore it or export again'
            )
    check_external(onnx_path, card.data_sha256 is not None)
    return card


def check_external(onnx_path: Path, has_data: bool = False) -> None:
    """Raise EngineError where a graph asks for weights in any file but the `.data` beside it, whose
    digest the card must have (`has_data`).

    ONNX keeps such a path in a StringStringEntryProto: field 1 is 'location', field 2 the path.
    """
    graph = onnx_path.read_bytes()
    allowed = {data_file(onnx_path).name.encode()} if has_data else set()
    for found in re.finditer(rb'\x0a\x08location', graph):
        after = graph[found.end():found.end() + 2]
        end = found.end() + 2
        path = graph[end:end + after[1]] if after[:1] == b'\x12' and len(after) == 2 else b''
        if path not in allowed:
            name = path.decode(errors='replace') or 'a place that cannot be read'
            raise EngineError(
                f'model file {onnx_path} wants weights from {name!r}: only {data_file(onnx_path)} '
                'with its data_sha256 in the card is read; export the model again'
            )


def read_card(onnx_path: Path) -> tuple[str, Any]:
    """(name, JSON) of the card beside an ONNX file. Raises EngineError."""
    path = onnx_path.with_suffix('.json')
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(
            f'model card {path} cannot be read ({error}): a model needs its card beside it; '
            'training/export.py writes both'
        ) from error
    try:
        return str(path), json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EngineError(
            f'model card {path} is not JSON ({error}): export the model again'
        ) from error


def data_file(onnx_path: Path) -> Path:
    """Where a graph's weights are if they do not fit into it."""
    return onnx_path.with_name(f'{onnx_path.name}.data')


def save_card(card: Any, path: Path) -> Path:
    """Write the card, of a model or a tracker, beside its file (`path` may be either); atomic.

    Returns the JSON's path.
    """
    path = Path(path).with_suffix('.json')
    scratch = path.with_name(f'.{path.name}.{os.getpid()}')
    scratch.write_text(json.dumps(dataclasses.asdict(card), indent=2) + '\n', encoding='utf-8')
    scratch.replace(path)
    return path


def sha256_of(path: Path) -> str:
    """Hex digest of a file. Raises EngineError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, 'rb') as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise EngineError(
            f'model file {path} cannot be read ({error}): check the parameter "model"'
        ) from error
    return digest.hexdigest()


def check(card: ModelCard, engine: Engine) -> None:
    """Raise EngineError, listing both sides, unless the graph has exactly the card's inputs and
    outputs.
    """
    for side in ('inputs', 'outputs'):
        wanted = {spec.name: spec for spec in getattr(card, side)}
        real = {spec.name: spec for spec in getattr(engine, side)}
        if wanted.keys() != real.keys() or not all(
            wanted[name].accepts(real[name]) for name in wanted
        ):
            raise EngineError(
                f'model {card.id}: {side} differ; card: {_list(wanted)}; graph: {_list(real)}: '
                'the card belongs to another file; export the model again'
            )


def embedding_channels(card: ModelCard) -> int:
    """Size of the embeddings that a model gives with its instances; 0 = it gives none."""
    sizes = [spec.shape[-1] for spec in card.outputs if spec.name == 'embeddings']
    return sizes[0] or 0 if sizes else 0


def _list(specs: dict[str, TensorSpec]) -> str:
    return ', '.join(str(spec) for spec in specs.values()) or 'none'


_NESTED = {
    'image': ImageSpec,
    'voxel': VoxelSpec,
    'window': WindowSpec,
    'postprocess': PostprocessSpec,
    'evidence': EvidenceSpec,
    'flow': FlowSettings,
    'frames': FrameWindow,
}
_RENAMED = {'max_objects': 'top_k'}  # old key -> the one that took its place
_SCALARS = {
    'str': (str, 'text'),
    'int': (int, 'a whole number'),
    'float': ((int, float), 'a number'),
    'bool': (bool, 'true or false'),
    'dict[str, Any]': (dict, 'an object'),
}


def build_card(kind: type, values: Any, where: str) -> Any:
    """A dataclass from a card's JSON object with exactly its fields; `where` names the file.

    Raises EngineError naming the key.
    """
    if not isinstance(values, dict):
        raise EngineError(f'model card {where}: must be a JSON object, is {type(values).__name__}')
    fields = {spec.name: spec for spec in dataclasses.fields(kind)}
    for key in values.keys() - fields.keys():
        if key in _RENAMED:
            raise EngineError(
                f'model card {where}: {key} is called {_RENAMED[key]} now: rename it, or export '
                'the '
                'model again'
            )
        near = difflib.get_close_matches(key, fields, 1)
        raise EngineError(
            f'model card {where}: unknown key {key!r}; '
            + (f'did you mean {near[0]!r}?' if near else f'known keys: {", ".join(fields)}')
        )
    missing = [name for name, spec in fields.items()
               if name not in values and spec.default is dataclasses.MISSING]
    if missing:
        raise EngineError(
            f'model card {where}: missing {", ".join(missing)}: export the model again'
        )
    found = {name: _value(fields[name], value, f'{where}: {name}')
             for name, value in values.items()}
    try:
        return kind(**found)
    except ConfigError as error:
        raise EngineError(f'model card {where}: {error}') from error


def _value(spec: dataclasses.Field, value: Any, where: str) -> Any:
    """One field's value in its declared type. Raises EngineError."""
    if value is None and spec.type.endswith('| None'):
        return None
    if spec.name in _NESTED:
        return build_card(_NESTED[spec.name], value, where)
    if (scalar := spec.type.removesuffix(' | None')) in _SCALARS:
        kind, words = _SCALARS[scalar]
        if not isinstance(value, kind) or isinstance(value, bool) != (spec.type == 'bool'):
            raise EngineError(f'model card {where} is {value!r}: must be {words}')
        return float(value) if scalar == 'float' else value
    if not isinstance(value, list):
        raise EngineError(f'model card {where} is {value!r}: must be a list')
    if spec.type.startswith('tuple[TensorSpec'):
        return tuple(build_card(TensorSpec, item, f'{where}[{n}]') for n, item in enumerate(value))
    kinds, words = (
        ((int, type(None)), 'whole numbers') if 'int' in spec.type else ((int, float), 'numbers')
    )
    if any(not isinstance(item, kinds) or isinstance(item, bool) for item in value):
        raise EngineError(f'model card {where} is {value!r}: must be a list of {words}')
    return tuple(value)
