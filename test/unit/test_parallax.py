"""Epipolar evidence, against points projected through a pinhole camera."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.motion.camera_motion import CameraMotion
from mos_perception.motion.evidence import PER_GAP, EvidenceSpec, Pair, assemble
from mos_perception.motion.flow import pixel_grid
from mos_perception.motion.parallax import find_epipole, off_epipolar, residual

SIZE = (96, 160)
FOCAL_PX, CENTRE = 140.0, np.array([79.5, 47.5])
GRID = pixel_grid(SIZE)
PLANE_M = 4.0  # depth of the main plane
STATIC = (slice(16, 48), slice(24, 56)), (slice(56, 88), slice(104, 144)), (
    slice(8, 40), slice(112, 144))
MOVER = slice(52, 84), slice(40, 72)


def turned(degrees):
    """Rotation about y, then z."""
    a, b = np.radians(degrees)
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_z @ about_y


def view(translation, degrees=(0.0, 0.0), mover=(0.0, 0.0, 0.0)):
    """(flow (H, W, 2), motion of the main plane): boards nearer than a plane, seen from a camera
    that goes by `translation`, m, and turns; one of the boards goes by `mover`.
    """
    depth, shift = np.full(SIZE, PLANE_M), np.zeros((*SIZE, 3))
    for board, metres in zip((*STATIC, MOVER), (2.0, 2.5, 1.6, 2.2)):
        depth[board] = metres
    shift[MOVER] = mover
    rays = np.dstack([(GRID - CENTRE) / FOCAL_PX, np.ones(SIZE)])
    rotation = turned(degrees)
    seen = (rays * depth[..., None] + shift - np.asarray(translation)) @ rotation.T
    flow = seen[..., :2] / seen[..., 2:] * FOCAL_PX + CENTRE - GRID
    matrix = np.array([[FOCAL_PX, 0, CENTRE[0]], [0, FOCAL_PX, CENTRE[1]], [0, 0, 1]])
    plane = rotation @ (np.eye(3) - np.outer(translation, [0, 0, 1]) / PLANE_M)
    homography = matrix @ plane @ np.linalg.inv(matrix)
    return flow.astype(np.float32), CameraMotion(homography / homography[2, 2], 0.6, 0.05)


def residuals(*views):
    return [residual(flow, motion, GRID) for flow, motion in views]


@settings(max_examples=25, deadline=None)
@given(st.floats(-0.25, 0.25), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2),
       st.tuples(st.floats(-2, 2), st.floats(-3, 3)))
def test_static_boards_lie_on_the_lines_and_the_mover_does_not(x, y, z, degrees):
    way = np.array([x, y, z])
    if np.linalg.norm(way[:2]) < 0.1:
        way[0] += 0.15
    across = np.array([-way[1], way[0], 0.0]) / np.linalg.norm(way[:2])
    views = [view(way * share, np.multiply(degrees, share), 0.3 * share * across)
             for share in (-0.5, -1, 0.5, 1)]
    fields = residuals(*views)
    epipole = find_epipole(fields, [0.05] * 4, GRID)
    assert epipole is not None
    heading = np.append(way[:2] * FOCAL_PX + way[2] * CENTRE, way[2])  # where the camera goes
    for field in fields[1::2]:
        off = off_epipolar(field, epipole, GRID)
        for board in STATIC:
            assert np.median(off[board]) < 0.25
            assert np.median(off_epipolar(field, heading, GRID)[board]) < 0.02
        assert np.median(off[MOVER]) > 2.0


def test_a_camera_at_rest_or_that_only_turns_has_no_epipole():
    fields = residuals(view((0.0, 0.0, 0.0), (2.0, 1.0)))
    assert np.abs(fields[0]).max() < 0.01
    assert find_epipole(fields, [0.05], GRID) is None
    moved = residuals(view((0.0, 0.0, 0.0), (0.0, 0.0), (0.02, 0.0, 0.0)))
    off = off_epipolar(moved[0], None, GRID)
    np.testing.assert_allclose(off, np.hypot(*moved[0].transpose(2, 0, 1)), atol=1e-5)


def test_an_epipole_at_infinity_is_a_direction():
    field = np.zeros((*SIZE, 2), np.float32)
    field[..., 0] = 3
    off = off_epipolar(field, np.array([1.0, 0.0, 0.0]), GRID)
    assert off.max() == 0 and off_epipolar(field, np.array([0.0, 5.0, 0.0]), GRID).min() == 3


def test_equal_residuals_give_equal_epipoles():
    rng = np.random.default_rng(0)
    fields = [rng.normal(0, 2, (*SIZE, 2)).astype(np.float32) for _ in range(4)]
    one, other = (find_epipole([field.copy() for field in fields], [0.1] * 4, GRID)
                  for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('there', [(0, 1, 2, 3), (0, 1)])
def test_channel_seven_is_what_lies_off_the_lines(there):
    spec = EvidenceSpec(size=SIZE, epipolar=True)
    views = [view(np.array([0.2, 0.05, 0.0]) * share, mover=np.array([-0.02, 0.25, 0.0]) * share)
             for share in (-0.5, -1, 0.5, 1)]
    blank = np.zeros((PER_GAP, *SIZE), np.float32)
    pairs = [Pair(blank, *views[gap]) if gap in there else None for gap in range(4)]
    planes = assemble(pairs, spec).reshape(4, PER_GAP, *SIZE)
    assert not planes[:, :7].any()
    for gap in planes:
        assert all(np.median(gap[7][board]) < 0.5 for board in STATIC)
        assert np.median(gap[7][MOVER]) > 2
    assert not assemble([None] * 4, spec).any()
