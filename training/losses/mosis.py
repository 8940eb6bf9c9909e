"""MoSIS' and AMD's losses: each frame explained by the other through its segments' motion.

N. Dubbeldam, "MoSIS", TU Delft 2025, section 3.7. Its eq 8 and 9 lay a flow over the grid of frame
t and read frame t with it; reading needs the flow on the grid of what is to be explained. Here
I_t(p) is explained by I_t+1(p + F(p)) with segments and flow of I_t, and the other way round:
only the pairing differs. Shapes: B frames (both ways), K detections, S segments, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.flow import warp
from training.losses.photometric import photometric_distance, visible
from training.nets.mosis import SegmentMotion
from training.nets.pwc_lite import EPSILON, spread_segments

OBJECTNESS = ('gain', 'inverted', 'thesis')


@dataclass(frozen=True)
class ExplainWeights:
    """What is minimised; the defaults are the thesis' but for the objectness' target."""

    photometric: str = 'ssim'
    """Distance of a frame and its explanation: 'ssim', 'l1' or 'mixed'."""
    scales: tuple[float, ...] = (1.0,)
    """Of the photometric term at the motion network's last levels, the finest at full size last;
    the others at 1/2, 1/4, ... of it, as AMD's code."""
    occlusion: bool = False
    """Pixels that the other frame does not show do not count."""
    objectness: float = 0.2
    """Of the objectness loss; 0 without detections."""
    target: str = 'gain'
    """Of the objectness: one of `OBJECTNESS`, see `objectness_targets`."""
    static_px: float = 0.5
    """Detections that move less than this beside the background are neither objects nor not."""


def explained(other: Tensor, partition: Tensor, flows: Tensor) -> Tensor:
    """(B, 3, H, W): the other frame read at p + F(p) on the grid of the partition's frame.

    other (B, 3, H, W), partition (B, S, H, W), flows (B, S, 2) px.
    """
    return warp(other, spread_segments(flows, partition))


def objectness_targets(kind: str, segments: Tensor, error: Tensor, without: Tensor) -> Tensor:
    """(B, K) in [0, 1], without gradient.

    segments (B, K, H, W): shares of the detections. error (B, H, W): of the explanation; without:
    of that by the background's motion alone.

    'thesis': mean error under the segment over the image's largest (eq 14 as written: what is
    badly explained becomes an object). 'inverted': 1 less that (an empty segment, too, explains
    well). 'gain': how much better than by the background's motion the pixels under the segment are
    explained, per pixel over (the largest + 0.05), times the root of the share of the image's
    largest gain in all, so that half an object is worth less than the whole.
    """
    segments, error = segments.detach(), error.detach()
    area = segments.sum((2, 3)) + EPSILON
    if kind != 'gain':
        mean = (segments * error[:, None]).sum((2, 3)) / area
        share = mean / (mean.amax(1, keepdim=True) + EPSILON)
        return share if kind == 'thesis' else 1 - share
    total = (segments * (without.detach() - error)[:, None]).sum((2, 3)).clamp(min=0)
    gain = total / area
    share = gain / (gain.amax(1, keepdim=True) + 0.05)
    return share * (total / (total.amax(1, keepdim=True) + EPSILON)).sqrt()


def objectness_loss(logits: Tensor, targets: Tensor, flows: Tensor, static_px: float) -> Tensor:
    """Mean cross-entropy of logits (B, K) against targets (B, K) (eq 15).

    Left out: detections whose flow, of flows (B, K + 1, 2) px with the background's first, is
    within `static_px` of the background's: what rests now may move another time. And those of
    logit -inf, which are none.
    """
    moves = (flows[:, 1:] - flows[:, :1]).detach().norm(dim=2) >= static_px
    counted = moves & logits.isfinite()
    losses = F.binary_cross_entropy_with_logits(logits.masked_fill(~counted, 0.0), targets,
                                                reduction='none')
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def explain_losses(motion: SegmentMotion, first: Tensor, second: Tensor,
                   weights: ExplainWeights) -> dict[str, Tensor]:
    """The weighted terms of frames (B, 3, H, W) and what the network said of them (eq 12 and 16).

    Photometric terms of both directions are added.
    """
    frames, others = torch.cat([first, second]), torch.cat([second, first])
    photo = frames.new_zeros(())
    with torch.no_grad():
        seen = _seen(motion, weights.occlusion)
    steps = len(weights.scales)
    for step, (weight, flows) in enumerate(zip(weights.scales, motion.flows[-steps:])):
        shrink = 1 << (steps - 1 - step)
        small, other, shares = (F.avg_pool2d(value, shrink) if shrink > 1 else value
                                for value in (frames, others, motion.partition))
        error = photometric_distance(small, explained(other, shares, flows / shrink),
                                     weights.photometric)
        counted = F.avg_pool2d(seen, shrink)[:, 0] if shrink > 1 else seen[:, 0]
        photo = photo + 2 * weight * (error * counted).sum() / counted.sum().clamp(min=1)
    terms = {'photometric': photo}
    if motion.detections is not None and weights.objectness:
        with torch.no_grad():
            flows = motion.flows[-1]
            background = flows[:, :1, :, None].transpose(1, 2).expand(-1, -1, *frames.shape[2:])
            without = photometric_distance(frames, warp(others, background), weights.photometric)
            targets = objectness_targets(weights.target, motion.partition[:, 1:], error, without)
        terms['objectness'] = weights.objectness * objectness_loss(
            motion.detections.logits, targets, flows, weights.static_px)
    return terms


def _seen(motion: SegmentMotion, occlusion: bool) -> Tensor:
    """(2 B, 1, H, W): 1 where a pixel counts."""
    ones = torch.ones_like(motion.partition[:, :1])
    if not occlusion:
        return ones
    flow = spread_segments(motion.flows[-1], motion.partition)
    return ones * visible(flow.roll(len(flow) // 2, 0))[:, None]
