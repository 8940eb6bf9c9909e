"""DVIS' tracker and refiner: sizes as published, numbers as an independent NumPy computation of the
paper's equations gives them.
"""

import dataclasses

import numpy as np
import pytest
import torch

from training.nets.dvis import NANO, PARTS, DvisConfig, ReferringTracker, TemporalRefiner

SMALL = DvisConfig(width=8, heads=2, feed_forward=12, blocks=2, classes=3, mask_width=4)


def count(network) -> int:
    return sum(value.numel() for value in network.parameters())


def randomised(network):
    torch.manual_seed(3)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(0.4 * torch.randn_like(value))
    return network.double().eval()


class Oracle:
    """The equations on a state dict, in NumPy float64; no line of torch."""

    def __init__(self, network) -> None:
        self.weights = {key: value.numpy() for key, value in network.state_dict().items()}
        self.config = network.config

    def linear(self, name, x):
        return x @ self.weights[f'{name}.weight'].T + self.weights[f'{name}.bias']

    def norm(self, name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * self.weights[f'{name}.weight'] + self.weights[f'{name}.bias']

    def attention(self, name, query, memory):
        """(Q, C), (N, C) -> (Q, C)."""
        width, heads = self.config.width, self.config.heads
        packed, bias = (self.weights[f'{name}.in_proj_{part}'] for part in ('weight', 'bias'))
        q, k, v = (source @ packed[n * width:(n + 1) * width].T + bias[n * width:(n + 1) * width]
                   for n, source in enumerate((query, memory, memory)))
        read = np.empty_like(q)
        step = width // heads
        for head in range(heads):
            part = slice(head * step, (head + 1) * step)
            table = np.exp(q[:, part] @ k[:, part].T / np.sqrt(step))
            read[:, part] = table / table.sum(1, keepdims=True) @ v[:, part]
        return self.linear(f'{name}.out_proj', read)

    def feed_forward(self, name, x):
        hidden = np.maximum(self.linear(f'{name}.layers.0', x), 0)
        return self.norm(f'{name}.norm', x + self.linear(f'{name}.layers.2', hidden))

    def crossed(self, name, identity, query, memory):
        read = self.attention(f'{name}.attention', query, memory)
        return self.norm(f'{name}.norm', identity + read)

    def tracker(self, initial, queries, reference):
        x, found = initial, []
        for n in range(self.config.blocks):
            block = f'blocks.{n}'
            x = self.crossed(f'{block}.cross_attention', x,
                             x if reference is None else reference, queries)
            x = self.crossed(f'{block}.self_attention', x, x, x)
            x = self.feed_forward(f'{block}.feed_forward', x)
            found.append(x)
        return np.stack(found)

    def convolution(self, name, x):
        """(T, C) -> (T, C), the ends repeated."""
        kernel, bias = self.weights[f'{name}.weight'], self.weights[f'{name}.bias']
        half = kernel.shape[2] // 2
        padded = np.concatenate([x[:1]] * half + [x] + [x[-1:]] * half)
        return np.stack([np.einsum('tc,oct->o', padded[t:t + kernel.shape[2]], kernel) + bias
                         for t in range(len(x))])

    def refiner(self, slots, queries):
        """(T, Q, C), (T, N, C)."""
        x, found = slots, []
        for n in range(self.config.blocks):
            block = f'blocks.{n}'
            along = []
            for slot in range(x.shape[1]):
                row = x[:, slot]
                if self.config.without != 'long':
                    row = self.crossed(f'{block}.long', row, row, row)
                if self.config.without != 'short':
                    short = self.convolution(f'{block}.short.0', row)
                    short = self.convolution(f'{block}.short.2', np.maximum(short, 0))
                    row = self.norm(f'{block}.short_norm', row + short)
                along.append(row)
            x = np.stack(along, 1)
            x = [self.crossed(f'{block}.self_attention', one, one, one) for one in x]
            if self.config.without != 'cross_attention':
                x = [self.crossed(f'{block}.cross_attention', one, one, memory)
                     for one, memory in zip(x, queries)]
            x = np.stack([self.feed_forward(f'{block}.feed_forward', one) for one in x])
            found.append(x)
        return np.stack(found)

    def masks(self, x):
        for n in (0, 2):
            x = np.maximum(self.linear(f'heads.masks.{n}', x), 0)
        return self.linear('heads.masks.4', x)


def tensors(*shapes):
    rng = np.random.default_rng(5)
    return [rng.normal(size=shape) for shape in shapes]


def test_parameters_as_published():
    """Table 9 of the paper: 9.68 M and 14.41 M."""
    assert round(count(ReferringTracker()) / 1e6, 2) == 9.68
    assert round(count(TemporalRefiner()) / 1e6, 2) == 14.41
    assert count(ReferringTracker(NANO)) < 150_000


@pytest.mark.parametrize('first', [True, False])
def test_the_tracker_computes_the_equations(first):
    network = randomised(ReferringTracker(SMALL))
    initial, queries, reference = tensors((3, 8), (5, 8), (3, 8))
    reference = None if first else reference
    with torch.no_grad():
        found = network(*(None if x is None else torch.from_numpy(x)[None]
                          for x in (initial, queries, reference)))
        classes, masks = network.read(found)
    oracle = Oracle(network)
    expected = oracle.tracker(initial, queries, reference)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-10)
    normed = oracle.norm('heads.norm', expected)
    np.testing.assert_allclose(classes[:, 0], oracle.linear('heads.classes', normed), atol=1e-10)
    np.testing.assert_allclose(masks[:, 0], oracle.masks(normed), atol=1e-10)


@pytest.mark.parametrize('without', ['', *PARTS])
def test_the_refiner_computes_the_equations(without):
    network = randomised(TemporalRefiner(dataclasses.replace(SMALL, without=without)))
    assert not without or not any(f'.{without}' in key for key in network.state_dict())
    slots, queries = tensors((6, 3, 8), (6, 5, 8))
    with torch.no_grad():
        found = network(torch.from_numpy(slots)[None], torch.from_numpy(queries)[None])
        classes, masks = network.read(found[-1])
    oracle = Oracle(network)
    expected = oracle.refiner(slots, queries)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-10)
    normed = oracle.norm('heads.norm', expected[-1])
    share = np.exp(oracle.linear('weight', normed))
    mean = (share / share.sum(0) * normed).sum(0)
    np.testing.assert_allclose(classes[0], oracle.linear('heads.classes', mean), atol=1e-10)
    np.testing.assert_allclose(masks[0], oracle.masks(normed), atol=1e-10)


def test_with_the_identity_as_query_it_is_ordinary_cross_attention():
    block = randomised(ReferringTracker(SMALL)).blocks[0].cross_attention
    x, memory = (torch.from_numpy(value)[None] for value in tensors((3, 8), (5, 8)))
    with torch.no_grad():
        plain = block.norm(x + block.attention(x, memory, memory)[0])
        torch.testing.assert_close(block(x, x, memory), plain)


def test_the_order_of_a_frames_queries_says_nothing():
    network = randomised(ReferringTracker(SMALL))
    initial, queries, reference = (torch.from_numpy(x)[None] for x in
                                   tensors((3, 8), (5, 8), (3, 8)))
    with torch.no_grad():
        one = network(initial, queries, reference)
        other = network(initial, queries[:, [4, 1, 0, 3, 2]], reference)
    torch.testing.assert_close(one, other)


def test_what_is_padding_counts_for_nothing():
    tracker, refiner = (randomised(kind(SMALL)) for kind in (ReferringTracker, TemporalRefiner))
    initial, queries, reference = (torch.from_numpy(x)[None] for x in
                                   tensors((3, 8), (5, 8), (3, 8)))
    padding, empty = torch.zeros(1, 5, dtype=bool), torch.zeros(1, 3, dtype=bool)
    padding[0, 3:], empty[0, 2:] = True, True
    with torch.no_grad():
        whole = tracker(initial, queries, reference, padding, empty)[:, :, :2]
        cut = tracker(initial[:, :2], queries[:, :3], reference[:, :2])
        torch.testing.assert_close(whole, cut)
        slots, frames = (torch.from_numpy(x)[None] for x in tensors((4, 3, 8), (4, 5, 8)))
        torch.testing.assert_close(refiner(slots, frames, padding[:, None].expand(1, 4, 5)),
                                   refiner(slots, frames[:, :, :3]))


def test_a_refiner_takes_clips_of_any_length():
    network = randomised(TemporalRefiner(dataclasses.replace(SMALL, blocks=1)))
    for frames in (1, 2, 21):
        shapes = (frames, 2, 8), (frames, 4, 8)
        slots, queries = (torch.from_numpy(x)[None] for x in tensors(*shapes))
        with torch.no_grad():
            assert network(slots, queries).shape == (1, 1, frames, 2, 8)
