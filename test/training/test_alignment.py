"""Alignment losses against NumPy, the gradient reversal, and two processes against one."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.losses.alignment import (
    AlignmentWeights,
    adversarial_loss,
    alignment_losses,
    contrast_loss,
    nt_xent,
    reversal,
    translation_loss,
)
from training.nets.alignment import MODALITIES, TYPES, Alignment, reverse_gradient
from training.recipes import RECIPES

torch.set_num_threads(1)
CHANNELS = (3, 4, 6)


def branches(batch, seed=0, disentangled=True):
    """Random maps of 8x8, 4x4 and 5x6 px that want gradients."""
    rng = torch.Generator().manual_seed(seed)
    sizes = ((8, 8), (4, 4), (5, 6))
    names = [f'{m}_{t}' for m in MODALITIES for t in TYPES] if disentangled else ['image_appearance', 'event_motion']
    return {f'{name}.{scale}': torch.randn(batch, channels, *size, generator=rng).requires_grad_()
            for name in names for scale, (channels, size) in enumerate(zip(CHANNELS, sizes))}


def parts(disentangled=True):
    torch.manual_seed(3)
    return Alignment(CHANNELS, disentangled).eval()


def pairwise_nt_xent(embeddings, labels, temperature):
    """One pair at a time, as the formula is written."""
    losses = []
    for a in range(len(labels)):
        for p in range(len(labels)):
            if a != p and labels[a] == labels[p]:
                up = np.exp(embeddings[a] @ embeddings[p] / temperature)
                down = sum(np.exp(embeddings[a] @ embeddings[n] / temperature)
                           for n in range(len(labels)) if labels[n] != labels[a])
                losses.append(-np.log(up / (up + down)))
    return np.mean(losses)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(1, 4), st.sampled_from([0.07, 0.5]), st.integers(0, 99))
def test_nt_xent_against_the_formula(count, width, temperature, seed):
    z = np.random.default_rng(seed).normal(size=(2 * count, width))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    labels = np.tile(np.arange(count), 2)
    ours = float(nt_xent(torch.from_numpy(z), torch.from_numpy(labels), temperature))
    assert ours == pytest.approx(pairwise_nt_xent(z, labels, temperature), rel=1e-9)


@pytest.mark.parametrize('disentangled', [True, False])
def test_contrast_pairs_frames_of_a_sample_and_type(disentangled):
    """Independent: loop over modalities, frames, samples and types; the positive is the same in the other frame."""
    alignment, maps, batch = parts(disentangled), branches(6, 1, disentangled), 3
    sides = ([('image_appearance', 'image_motion'), ('event_appearance', 'event_motion')] if disentangled else
             [('image_appearance', 'event_motion')])
    wanted = []
    for names in sides:
        z, labels = [], []
        for frame in range(2):
            for sample in range(batch):
                for number, (kind, name) in enumerate(zip(TYPES, names)):
                    row = frame * batch + sample
                    z.append(alignment.projectors[kind](maps[f'{name}.2'][row:row + 1])[0].detach().numpy())
                    labels.append((sample, number))
        wanted.append(pairwise_nt_xent(np.float64(z), labels, 0.07))
    assert float(contrast_loss(maps, alignment, 2, 0.07)) == pytest.approx(np.mean(wanted), rel=1e-4)


def test_reversal_schedule_and_gradient():
    assert [round(reversal(p), 4) for p in (0, 0.1, 0.5, 1)] == [0, 0.4621, 0.9866, 0.9999]
    x = torch.tensor([2.0, -1.0], requires_grad=True)
    (reverse_gradient(x, 0.3) ** 2).sum().backward()
    assert torch.allclose(x.grad, -0.3 * 2 * x.detach())


@pytest.mark.parametrize('detach', [True, False])
def test_adversarial_loss_and_who_moves(detach):
    alignment, maps = parts(), branches(2)
    loss = adversarial_loss(maps, alignment, 0.5, detach)
    wanted = 0.0
    for kind, reference in (('appearance', 'image'), ('motion', 'event')):
        for modality in MODALITIES:
            logits = alignment.discriminators[kind](maps[f'{modality}_{kind}.2']).detach().double().numpy()
            sign = 1 if modality == reference else -1
            wanted += np.log1p(np.exp(-sign * logits)).mean() / 2
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    loss.backward()
    moved = {name for name, value in maps.items() if value.grad is not None}
    everyone = {f'{m}_{t}.2' for m in MODALITIES for t in TYPES}
    assert moved == (everyone - {'image_appearance.2', 'event_motion.2'} if detach else everyone)
    # the discriminator descends, the encoder ascends: opposite to the gradient without reversal, scaled by the factor
    plain = torch.nn.functional.binary_cross_entropy_with_logits
    twin = maps['event_appearance.2'].detach().clone().requires_grad_()
    logits = alignment.discriminators['appearance'](twin)
    (0.5 * plain(logits, torch.zeros_like(logits))).backward()
    assert torch.allclose(maps['event_appearance.2'].grad, -0.5 * twin.grad, atol=1e-7)


def test_translation_moves_the_source_only():
    alignment, maps = parts(), branches(2)
    loss = translation_loss(maps, alignment)
    errors = []
    for kind in TYPES:
        for source, target in (('image', 'event'), ('event', 'image')):
            for scale in range(3):
                made = alignment.translators[f'{kind}_to_{target}'][scale](maps[f'{source}_{kind}.{scale}'])
                errors.append(float(((made - maps[f'{target}_{kind}.{scale}']) ** 2).mean()))
    assert float(loss) == pytest.approx(np.mean(errors), rel=1e-5)
    for name in ('appearance_to_image', 'motion_to_image', 'motion_to_event'):
        for layer in alignment.translators[name].parameters():
            layer.data.zero_()
    only = {**maps}
    translation_loss(only, alignment).backward()
    assert maps['image_appearance.0'].grad.abs().sum() > 0  # the source of appearance_to_event
    assert maps['event_motion.0'].grad is None or not maps['event_motion.0'].grad.any()


def test_last_frame_twice_is_what_was_released():
    alignment, maps = parts(), branches(4)
    sound = AlignmentWeights(adversarial=2.0, translation=3.0, detach_reference=False)
    released = replace(sound, last_frame_twice=True)
    last = {name: value[2:] for name, value in maps.items()}
    ours = alignment_losses(maps, alignment, released, 2, 0.4)
    assert float(ours['adversarial']) == pytest.approx(
        4 * float(adversarial_loss(last, alignment, reversal(0.4), False)), rel=1e-5)
    assert float(ours['translation']) == pytest.approx(6 * float(translation_loss(last, alignment)), rel=1e-5)
    both = alignment_losses(maps, alignment, sound, 2, 0.4)
    assert float(both['translation']) == pytest.approx(3 * float(translation_loss(maps, alignment)), rel=1e-5)
    assert set(both) == {'adversarial', 'translation'} and not AlignmentWeights().any


SCRIPT = '''
import sys, torch
import torch.distributed as dist
sys.path[:0] = sys.argv[4:6]
from test_alignment import branches, parts
from training.losses.alignment import contrast_loss
rank = int(sys.argv[1])
dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{sys.argv[2]}', rank=rank, world_size=2)
whole, alignment = branches(8), parts()
# 4 samples in 2 frames: one process has the first ones of both frames, the other one the rest
first = int(sys.argv[6])
mine = range(first) if rank == 0 else range(first, 4)
rows = torch.tensor([4 * frame + sample for frame in range(2) for sample in mine])
loss = contrast_loss({name: value.detach()[rows] for name, value in whole.items()}, alignment, 2, 0.07, 3)
loss.backward()
for parameter in alignment.projectors.parameters():
    dist.all_reduce(parameter.grad)
    parameter.grad /= 2
torch.save((float(loss), [p.grad for p in alignment.projectors.parameters()]), f'{sys.argv[3]}/{rank}.pt')
dist.destroy_process_group()
'''


@pytest.mark.parametrize('first', [2, 1])
def test_two_processes_contrast_like_one(tmp_path, first):
    """The loss sees the negatives of both processes, and the averaged gradient is that of the whole batch; also if
    one process left samples out."""
    (tmp_path / 'worker.py').write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    here = Path(__file__).resolve()
    workers = [subprocess.Popen([sys.executable, str(tmp_path / 'worker.py'), str(rank), str(port), str(tmp_path),
                                 str(here.parent), str(here.parents[2]), str(first)], stderr=subprocess.PIPE, text=True)
               for rank in range(2)]
    for worker in workers:
        errors = worker.communicate(timeout=300)[1]
        assert worker.returncode == 0, errors[-2000:]
    alignment = parts()
    loss = contrast_loss({name: value.detach() for name, value in branches(8).items()}, alignment, 2, 0.07)
    loss.backward()
    for rank in range(2):
        found, gradients = torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        assert found == pytest.approx(float(loss), rel=1e-5)
        for ours, wanted in zip(gradients, alignment.projectors.parameters()):
            assert torch.allclose(ours, wanted.grad, atol=1e-6, rtol=1e-4)


def test_nothing_is_aligned_with_an_input_that_was_dropped():
    alignment, maps = parts(), branches(8)
    weights = AlignmentWeights(contrast=1.0, adversarial=2.0, translation=3.0)
    whole = torch.tensor([True, True, False, True] + [True, True, True, True])  # sample 2 lacks an input in one frame
    found = alignment_losses(maps, alignment, weights, 2, 0.4, whole)
    rows = [0, 1, 3, 4, 5, 7]
    wanted = alignment_losses({name: value[rows] for name, value in maps.items()}, alignment, weights, 2, 0.4)
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-6), name
    sum(found.values()).backward()
    for name, value in maps.items():
        assert value.grad is None or not value.grad[[2, 6]].any(), name
    alone = torch.tensor([True, False, False, False] * 2)  # one sample has nothing to differ from
    everyone = alignment_losses(maps, alignment, weights, 2, 0.4)
    assert alignment_losses(maps, alignment, weights, 2, 0.4, alone) == everyone


def test_weight_sets_of_code_and_paper():
    """The released configuration for MouseSIS and the paper's factors."""
    code, paper = RECIPES['dimos'], RECIPES['dimos_paper']
    for recipe, flow, contrast, adversarial in ((code, 0.5, 10.0, 1.0), (paper, 10.0, 0.5, 0.1)):
        assert (recipe.weights.classes, recipe.weights.dice, recipe.weights.focal) == (1.0, 1.0, 20.0)
        assert (recipe.weights.flow, recipe.weights.box, recipe.alignment.translation) == (flow, 0.01, 10.0)
        assert (recipe.alignment.contrast, recipe.alignment.adversarial) == (contrast, adversarial)
        assert recipe.frames == 2 and recipe.net.as_released
