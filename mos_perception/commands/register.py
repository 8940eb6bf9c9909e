"""`mos register`: where the event camera's pixels are in the frames, from a recording."""

from __future__ import annotations

import argparse

import cv2
import numpy as np
from rich.console import Console

from mos_perception.errors import BagError
from mos_perception.motion.alignment import align
from mos_perception.motion.event_compensation import resize_matrix
from mos_perception.motion.homography_file import Homography, write_homography
from mos_perception.motion.pixel_table import from_homography
from mos_perception.recording.bag import open_bag
from mos_perception.recording.frame_pairs import FramePair, Pairs, frame_pairs
from mos_perception.reports.visualize import OFF, ON, contact_sheet, write_image

PICTURES = 3
FAINT = 0.5  # of the frame's contrast is left below the events


def register_command(args: argparse.Namespace) -> None:
    """Estimate the homography, write it and the picture, and say what to do with them."""
    with open_bag(args.bag) as bag:
        image_topic, events_topic = bag.pick(args.image_topic, args.events_topic)
        if not (image_topic and events_topic):
            raise BagError(f'{bag.path} has no frames or no events: both are needed; its topics: '
                           f'{bag.listing()}')
        pairs = frame_pairs(bag, image_topic, events_topic)
        partial = bag.fault
    found = align([pair.events for pair in pairs.pairs], [pair.change for pair in pairs.pairs])
    reduced = pairs.pairs[0].change.shape
    matrix = resize_matrix(reduced, pairs.frame_size) @ found.matrix
    matrix /= matrix[2, 2]
    homography = Homography(matrix, pairs.event_size, pairs.frame_size)
    error_px = found.error_px * pairs.frame_size[1] / reduced[1]
    write_homography(args.out, homography, correlation=round(float(found.correlation), 3),
                     patches=found.patches, median_error_px=round(error_px, 3),
                     image_topic=image_topic, events_topic=events_topic)
    overlay = args.overlay or args.out.with_suffix('.png')
    write_image(overlay, overlay_picture(pairs, homography))
    _report(args, homography, found.patches, found.matched, error_px, float(found.correlation))
    if partial:
        print(f'PARTIAL: {partial}')
    print(f'wrote {args.out}\nwrote {overlay}: the events must lie on the edges on the right')


def _report(args: argparse.Namespace, found: Homography, patches: int, matched: int,
            error_px: float, correlation: float) -> None:
    linear = found.matrix[:2, :2]
    middle = (np.array(found.event_size[::-1]) - 1) / 2
    moved = found.matrix @ [*middle, 1]
    shift = moved[:2] / moved[2] - (np.array(found.frame_size[::-1]) - 1) / 2
    turn = np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
    table = from_homography(found.matrix, found.event_size, found.frame_size)
    Console().print(
        f'event camera {found.event_size[1]} x {found.event_size[0]} px in frames of '
        f'{found.frame_size[1]} x {found.frame_size[0]}: an event pixel covers '
        f'{np.sqrt(abs(np.linalg.det(linear))):.3f} px, turned by {turn:.2f} degrees, its middle '
        f'{shift[0]:+.1f}, {shift[1]:+.1f} px off; {table.share_inside:.0%} of its pixels are in '
        f'the frame\ncorrelation {correlation:.2f}, {patches} of {matched} patches agree, to '
        f'{error_px:.2f} px (median)\nuse it: registration: homography, homography_file: '
        f'{args.out}', highlight=False, soft_wrap=True)


def overlay_picture(pairs: Pairs, found: Homography) -> np.ndarray:
    """Left the frames with the events as if both had one view, right where the homography puts
    them: (H, W, 3) uint8 RGB.
    """
    chosen = sorted(pairs.pairs, key=lambda pair: -len(pair.window))[:PICTURES]
    rows, columns = found.frame_size
    scale = np.diag([columns / found.event_size[1], rows / found.event_size[0], 1.0])
    tiles = [_events_on(pair, Homography(matrix, found.event_size, found.frame_size))
             for pair in chosen for matrix in (scale, found.matrix)]
    return contact_sheet(tiles, 2, ['scaled to the frame', 'registered'] * len(chosen), 480)


def _events_on(pair: FramePair, found: Homography) -> np.ndarray:
    """The frame, paler, with the events in their colours."""
    table = from_homography(found.matrix, found.event_size, found.frame_size)
    events = table.apply(pair.window)
    frame = cv2.resize(pair.frame, table.size[::-1], interpolation=cv2.INTER_AREA)
    picture = (255 - FAINT * (255 - frame.astype(np.float32))).astype(np.uint8)
    for polarity, ink in ((0, OFF), (1, ON)):
        chosen = events.p == polarity
        picture[events.y[chosen], events.x[chosen]] = ink
    return picture
