"""What a network on pairs of frames learns from a batch, by its kind."""

from __future__ import annotations

from torch import Tensor, nn

from training.datasets.frame_pairs import PairBatch
from training.losses.mosis import explain_losses
from training.losses.yolo import assign, detection_losses, flow_losses, mask_loss
from training.nets.pwc_lite import PwcLite
from training.nets.yolo import Yolo
from training.recipes_mosis import MosisRecipe


def pair_losses(network: nn.Module, batch: PairBatch, recipe: MosisRecipe,
                *_: object) -> dict[str, Tensor]:
    """The weighted loss terms; their sum is minimised. Nothing else that the loop knows counts.

    A flow network learns from the true flow, a detector from boxes and masks; Mosis and Amd see
    the two frames alone.
    """
    if isinstance(network, PwcLite):
        return flow_losses(network.pixel_flows(batch.first, batch.second), batch.flow)
    if isinstance(network, Yolo):
        proposals, weights = network(batch.first), recipe.detect
        terms = detection_losses(proposals, assign(network, batch.boxes), weights)
        terms['mask'] = weights.mask * mask_loss(network, proposals, batch.masks, batch.boxes,
                                                 weights.jitter)
        return terms
    return explain_losses(network(batch.first, batch.second), batch.first, batch.second,
                          recipe.explain)
