"""Mask2Former (Cheng et al. 2022, arXiv 2112.01527) through `transformers`, as DVIS' segmenter.

`transformers` is an extra of training (requirements/gmos.txt); the runtime has none of it. Its code
is Apache-2.0; weights are random, none are fetched. Legend: B images, Q queries, C width, K
classes, h w a quarter of the image's sides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mos_perception.errors import ConfigError, MissingLibraryError

_MEAN, _DEVIATION = 0.45, 0.225  # of the channels of pictures in [0, 1]


@dataclass(frozen=True)
class SegmenterConfig:
    """Sizes of a segmenter that a CPU trains; the loss' weights are the published ones."""

    classes: int
    """K, without the class that says there is none."""
    things: int
    """So many of the classes, the first ones, are things."""
    height: int = 128
    """Of the images, px; a multiple of 32 as the width is."""
    width: int = 160
    """Of the images, px."""
    channels: int = 64
    """C, a multiple of 32; the mask features have as many."""
    queries: int = 20
    """Q."""
    heads: int = 4
    """Of every attention; they divide the channels."""
    feed_forward: int = 128
    """Hidden width of the feed-forward nets."""
    encoder_layers: int = 2
    """Of the pixel decoder's deformable attention."""
    decoder_layers: int = 3
    """Of the queries; the library counts one more."""
    stages: tuple[int, ...] = (32, 48, 64, 96)
    """Channels of the ResNet's stages, strides 4 to 32."""
    depth: int = 1
    """Blocks of two convolutions per stage."""
    points: int = 512
    """At which masks are compared: 12544 in the paper, for images of 15 to 70 times the pixels."""

    def __post_init__(self) -> None:
        """Raises ConfigError for sizes that the layers cannot take."""
        for name, value in (('height', self.height), ('width', self.width),
                            ('channels', self.channels)):
            if value < 32 or value % 32:
                raise ConfigError(f'{name} {value} of the segmenter is no multiple of 32: choose '
                                  f'{max(32, round(value / 32) * 32)}')


@dataclass(frozen=True)
class Segments:
    """What DVIS takes of a frame: `queries` (B, Q, C) after the decoder's norm, logits of `classes`
    (B, Q, K + 1), the last for none, and of `masks` (B, Q, h, w), `features` (B, C, h, w). A mask
    is the dot product of a query's embedding and the features.
    """

    queries: Tensor
    classes: Tensor
    masks: Tensor
    features: Tensor


class Segmenter(nn.Module):
    """The library's network behind our names."""

    def __init__(self, config: SegmenterConfig) -> None:
        """Raises MissingLibraryError without `transformers`."""
        super().__init__()
        self.config = config
        self.net = _transformers().Mask2FormerForUniversalSegmentation(library_config(config))

    def forward(self, images: Tensor) -> Segments:
        """`images` (B, 3, H, W) in [0, 1]."""
        return self._segments(self.net((images - _MEAN) / _DEVIATION))

    def loss(self, images: Tensor, masks: Sequence[Tensor],
             classes: Sequence[Tensor]) -> tuple[Tensor, Segments]:
        """The library's own loss over all decoder layers. Per image `masks` (N, H, W) float of 0
        and 1, `classes` (N,) int64.
        """
        outputs = self.net((images - _MEAN) / _DEVIATION, mask_labels=list(masks),
                           class_labels=list(classes))
        return outputs.loss, self._segments(outputs)

    def _segments(self, outputs: Any) -> Segments:
        # the library gives the last layer's output before the norm that its heads see it through
        norm = self.net.model.transformer_module.decoder.layernorm
        return Segments(norm(outputs.transformer_decoder_last_hidden_state),
                        outputs.class_queries_logits, outputs.masks_queries_logits,
                        outputs.pixel_decoder_last_hidden_state)


def semantic_scores(segments: Segments) -> Tensor:
    """(B, K, h, w): each class' share of the queries' masks, as the paper reads semantics."""
    return torch.einsum('bqk,bqhw->bkhw', segments.classes.softmax(-1)[..., :-1],
                        segments.masks.sigmoid())


def config_of(text: str) -> SegmenterConfig:
    """From the JSON of its fields."""
    return SegmenterConfig(**{name: tuple(value) if isinstance(value, list) else value
                              for name, value in json.loads(text).items()})


def library_config(config: SegmenterConfig) -> Any:
    """The library's configuration."""
    library = _transformers()
    names = [f'stage{number}' for number in range(1, len(config.stages) + 1)]
    backbone = library.ResNetConfig(
        embedding_size=config.stages[0], hidden_sizes=list(config.stages),
        depths=[config.depth] * len(config.stages), layer_type='basic', out_features=names)
    return library.Mask2FormerConfig(
        backbone_config=backbone, num_labels=config.classes, num_queries=config.queries,
        feature_size=config.channels, mask_feature_size=config.channels, hidden_dim=config.channels,
        encoder_layers=config.encoder_layers, decoder_layers=config.decoder_layers + 1,
        num_attention_heads=config.heads, dim_feedforward=config.feed_forward,
        encoder_feedforward_dim=config.feed_forward, train_num_points=config.points,
        use_auxiliary_loss=True)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingLibraryError(
            'Mask2Former needs transformers, which is not installed: '
            'pip install -r requirements/gmos.txt') from error
    return transformers
