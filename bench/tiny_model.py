"""A DIMOS-shaped ONNX model without learning, for tests and for measuring everything but the
network.

Query 0 is what is bright in the frame, query 1 where events are; both 'moving'. Its outputs are a
plain function of its inputs, so equal inputs give equal masks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mos_perception.engine.card import (
    ImageSpec,
    ModelCard,
    PostprocessSpec,
    VoxelSpec,
    WindowSpec,
    save_card,
    sha256_of,
)
from mos_perception.engine.interface import TensorSpec

HEIGHT, WIDTH, QUERIES, CHANNELS = 120, 160, 4, 8
SHAPES = {
    'image': (1, 3, HEIGHT, WIDTH),
    'voxel': (1, 10, HEIGHT, WIDTH),
    'class_logits': (1, QUERIES, 3),
    'mask_logits': (1, QUERIES, HEIGHT // 4, WIDTH // 4),
    'boxes': (1, QUERIES, 4),
    'embeddings': (1, QUERIES, CHANNELS),
}


def make_tiny_model(path: Path, side: str = 'before', length_ms: float = 33.0) -> Path:
    """Write model and card to `path` (.onnx); returns it."""
    _write_graph(path)
    specs = [TensorSpec(name, shape, 'float32') for name, shape in SHAPES.items()]
    save_card(
        ModelCard(
            id='tiny',
            architecture='dimos',
            file=path.name,
            sha256=sha256_of(path),
            inputs=tuple(specs[:2]),
            outputs=tuple(specs[2:]),
            image=ImageSpec((0.0,) * 3, (1.0,) * 3),
            voxel=VoxelSpec('dimos', 5, 'max', 1.0, 'bin'),
            window=WindowSpec(side, length_ms),
            postprocess=PostprocessSpec(10, 0.1),
            training={},
            scores={},
            licence='Apache-2.0',
        ),
        path,
    )
    return path


def _write_graph(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    constants = _constants()
    nodes = [
        helper.make_node('Concat', ['image', 'voxel'], ['both'], axis=1),
        helper.make_node('AveragePool', ['both'], ['small'], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node('Conv', ['small', 'weights', 'bias'], ['mask_logits']),
        *(
            helper.make_node('Identity', [f'{name}_const'], [output])
            for name, output in (
                ('class', 'class_logits'),
                ('box', 'boxes'),
                ('embedding', 'embeddings'),
            )
        ),
    ]
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in SHAPES.items()
    }
    names = list(SHAPES)
    graph = helper.make_graph(
        nodes,
        'tiny',
        [values[name] for name in names[:2]],
        [values[name] for name in names[2:]],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8),
        str(path),
    )


def _constants() -> dict[str, np.ndarray]:
    weights = np.zeros((QUERIES, 13, 1, 1), np.float32)
    weights[0, :3], weights[1, 3:] = 2.0, 200.0
    bias = np.array([-3.0, -4.0, -9.0, -9.0], np.float32)
    classes = np.full((1, QUERIES, 3), -4.0, np.float32)
    classes[0, :2, 1], classes[0, 2:, 2] = (4.0, 3.0), 4.0
    boxes = np.tile(np.array([0, 0, WIDTH, HEIGHT], np.float32), (1, QUERIES, 1))
    return {'weights': weights, 'bias': bias, 'class_const': classes, 'box_const': boxes,
                 'embedding_const': np.eye(QUERIES, CHANNELS, dtype=np.float32)[None]}
