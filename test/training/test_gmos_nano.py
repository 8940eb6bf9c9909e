"""GMOS' light members: network, objective, batches of cached evidence, runs that go on."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mos_perception.config import Config
from mos_perception.datatypes import Frame, SyncedInput
from mos_perception.errors import DatasetError
from mos_perception.models import load_model
from mos_perception.models.preprocess import voxel_tensor
from mos_perception.motion.builder import EvidenceBuilder
from mos_perception.motion.event_image import event_image
from mos_perception.motion.evidence import PER_GAP, EvidenceSpec, channel_count, mirrored
from mos_perception.motion.scene_motion import scene_motion
from mos_perception.stages import StageTimes
from training.datasets.evidence import STEP
from training.export_video import main as export
from training.losses.gmos import gmos_loss, mask_loss, match, overlap
from training.nets.gmos_nano import MAX_CONFIDENCE, GmosNano, GmosNanoConfig, resized_to
from training.scenes import render_clip
from training.scenes.presets import find_preset
from training.scenes.shards import save_clips
from training.train_video import COLOURS_FROM, Run, learning_rate, main
from training.video_batches import CROP, Batches
from training.video_cache import OF_EVENTS, VOXEL, WINDOW_NS, sample
from training.video_cache import main as cache_clips

SMALL = GmosNanoConfig(stem=4, widths=(4, 6, 8, 8, 8), appearance=(4, 4, 4), queries=3, width=8)
WITH_EVENTS = dataclasses.replace(SMALL, event_channels=10, events=4)


def folder_of(tmp_path, count=4):
    """A cache whose one object moves right: x residual and label are one square."""
    rng = np.random.default_rng(0)
    spec = EvidenceSpec()
    evidence = np.zeros((count, channel_count(spec), *spec.size), np.int8)
    label = np.zeros((count, *spec.size), np.uint8)
    label[:, 40:90, 80:150] = 1
    planes = evidence.reshape(count, 4, PER_GAP, *spec.size)
    square = label[:, None].astype(np.int8)
    planes[:, :2, 0] = -60 * square
    planes[:, 2:, 0] = 60 * square
    np.save(tmp_path / 'a.evidence.npy', evidence)
    np.save(tmp_path / 'a.image.npy', rng.integers(0, 255, (count, 3, *spec.size), np.uint8))
    np.save(tmp_path / 'a.label.npy', label)
    return tmp_path


def test_time_turned_round_changes_nothing():
    """A mirrored window is the same evidence: before and after are treated alike."""
    network = GmosNano(SMALL).eval()
    before = torch.randn(1, 2, PER_GAP, 64, 96)
    after = torch.randn(1, 2, PER_GAP, 64, 96)
    signs = torch.from_numpy(mirrored(np.ones((PER_GAP, 1, 1), np.float32)))
    one = torch.cat([before, after], 1).flatten(1, 2)
    other = torch.cat([after * signs, before * signs], 1).flatten(1, 2)
    image, colour = torch.randn(1, 3, 64, 96), torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        a, b = network(image, one, colour), network(image, other, colour)
    assert a['foreground_logits'].shape == (1, 1, 32, 48)
    assert a['mask_logits'].shape == (1, 3, 32, 48)
    torch.testing.assert_close(a['foreground_logits'], b['foreground_logits'])
    assert 1 <= a['quality'][..., 1].min() and a['quality'][..., 1].max() <= MAX_CONFIDENCE


def test_a_single_picture_needs_no_colours():
    network = GmosNano(dataclasses.replace(SMALL, gaps=0)).eval()
    image, dark = torch.randn(1, 3, 64, 96), torch.zeros(1, 1, 64, 96)
    with torch.no_grad():
        alone, known = network(image), network(image, None, dark)
        told = network(image, None, dark + 1)
    assert all((alone[name] == known[name]).all() for name in known)
    assert (alone['foreground_logits'] != told['foreground_logits']).any()


def test_mask_loss_prefers_the_truth():
    target = torch.zeros(1, 32, 32)
    target[:, 8:20, 8:24] = 1
    right, wrong = 8 * (target - 0.5), 8 * (0.5 - target)
    assert mask_loss(right, target) < 0.1 < 2 < mask_loss(wrong, target)
    assert overlap(right, target) == 1 and overlap(wrong, target) == 0
    empty = torch.zeros(1, 32, 32)
    assert overlap(empty - 1, empty) == 1


def test_match_finds_the_permutation():
    target = torch.zeros(2, 16, 16)
    target[0, :8], target[1, 10:] = 1, 1
    logits = 6 * (torch.stack([target[1], torch.zeros(16, 16), target[0]]) - 0.5)
    queries, objects = match(logits, torch.zeros(3), target)
    assert dict(zip(queries.tolist(), objects.tolist())) == {0: 1, 2: 0}


def test_loss_without_objects_is_finite():
    outputs = GmosNano(SMALL)(torch.randn(2, 3, 64, 96), torch.randn(2, 32, 64, 96),
                              torch.zeros(2, 1, 64, 96))
    terms = gmos_loss(outputs, torch.zeros(2, 32, 48, dtype=torch.long))
    assert all(torch.isfinite(term) for term in terms.values())


@pytest.mark.parametrize('weighted, wanted', [(False, [1.0, 1.0]), (True, [0.5, 1.5])])
@pytest.mark.parametrize('term, masks, quality', [
    ('foreground', 'foreground_logits', 'foreground_quality'),
    ('queries', 'mask_logits', 'quality')])
def test_confidence_weighs_a_mask_only_when_asked(weighted, wanted, term, masks, quality):
    """Two equal samples of confidence 1 and 3: weights C over the mean of C, or all 1."""
    label = torch.zeros(2, 16, 16, dtype=torch.long)
    label[:, 4:12, 3:9] = 1
    outputs = {name: torch.zeros(2, 1, 16, 16) for name in ('foreground_logits', 'mask_logits')}
    outputs |= {'foreground_quality': torch.ones(2, 2), 'quality': torch.ones(2, 1, 2),
                'motion_logits': torch.zeros(2, 1)}
    outputs[quality][1, ..., 1] = 3
    logits = outputs[masks].requires_grad_()
    gmos_loss(outputs, label, weighted)[term].backward()
    one = torch.zeros(1, 16, 16, requires_grad=True)
    mask_loss(one, label[:1].float()).sum().backward()
    for gradient, factor in zip(logits.grad[:, 0], wanted):
        torch.testing.assert_close(gradient, factor / 2 * one.grad[0])


def test_mirrored_samples_turn_their_flow(tmp_path):
    """Where evidence says the object moves right before a flip, it says left after it."""
    batches = Batches([folder_of(tmp_path)], np.random.default_rng(0))
    found = set()
    for _ in range(20):
        batch = batches.take(1)
        label = batch.labels
        assert batch.image.shape == (1, 3, *CROP) and batch.bins.shape == (1, *CROP)
        assert label.shape == (1, CROP[0] // 2, CROP[1] // 2)
        planes = batch.evidence.reshape(4, PER_GAP, *CROP)
        inside = planes[:, 0, ::2, ::2][:, label[0] > 0]
        signs = inside.mean(1).sign()
        assert {float(signs[0]) * float(signs[2]), float(signs[1]) * float(signs[3])} <= {-1.0, 0.0}
        found.add(float(signs[signs != 0][0]))
        outside = planes[:, 0, ::2, ::2][:, label[0] == 0]
        assert outside.abs().max() == 0
    assert found == {-1.0, 1.0}


def test_colours_come_from_the_masks_so_far_and_only_for_a_share(tmp_path):
    run = Run(tmp_path / 'run', SMALL, 5e-3, None)
    batch = Batches([folder_of(tmp_path)], np.random.default_rng(0)).take(16)
    assert not run.colours(batch).any(), 'masks are chance at the start'
    run.steps = COLOURS_FROM
    known = run.colours(batch).flatten(1).any(1)
    assert 0 < known.sum() < 16


def test_a_network_that_sees_events_begins_as_the_one_that_does_not():
    """And goes on so where there are none; what is cut again is what it was."""
    torch.manual_seed(0)
    blind = GmosNano(SMALL).eval()
    seeing = resized_to(blind, WITH_EVENTS).eval()
    inputs = (torch.randn(2, 3, 64, 96), torch.randn(2, 32, 64, 96), torch.randn(2, 1, 64, 96))
    voxel = torch.rand(2, 10, 32, 48)
    with torch.no_grad():
        wanted = blind(*inputs)
        for network, given in ((seeing, voxel), (resized_to(seeing, SMALL).eval(), None)):
            found = network(*inputs, given)
            for name, value in wanted.items():
                torch.testing.assert_close(found[name], value)
        torch.nn.init.normal_(seeing.fusion.fuse[0].weight)
        with_events, without = seeing(*inputs, voxel), seeing(*inputs, 0 * voxel)
        cut = resized_to(seeing, SMALL).eval()(*inputs)
    assert not torch.allclose(with_events['mask_logits'], without['mask_logits'], atol=1e-3)
    for name, value in cut.items():
        torch.testing.assert_close(without[name], value)


def test_event_samples_lose_a_modality_at_times_never_both(tmp_path):
    """Without a frame the evidence is that of its events."""
    rng = np.random.default_rng(0)
    label = np.load(folder_of(tmp_path) / 'a.label.npy')
    np.save(tmp_path / 'a.voxel.npy', rng.integers(1, 255, (len(label), 10, 64, 112), np.uint8))
    drawn = np.load(tmp_path / 'a.evidence.npy')
    drawn[:, 6::PER_GAP] = drawn[:, 7::PER_GAP] = 99  # one of them at most is taken away
    np.save(tmp_path / 'a.drawn.npy', drawn)
    batch = Batches([tmp_path], np.random.default_rng(0)).take(200)
    assert batch.voxel.shape == (200, 10, CROP[0] // 2, CROP[1] // 2)
    marks = batch.evidence.unflatten(1, (-1, PER_GAP))[:, :, 6:]
    frames, events = ~marks.flatten(1).any(1), batch.voxel.flatten(1).any(1)
    assert batch.evidence.flatten(1).any(1).all() and (frames | events).all()
    assert 45 < (~frames).sum() < 95 and 30 < (~events).sum() < 75
    assert not batch.bins[~frames.numpy()].any() and not batch.image[~frames].any()


def test_samples_of_rendered_events_are_what_the_runtime_makes():
    """Evidence of frames and of images drawn of events, a voxel grid, its motion by either."""
    clip, spec = render_clip('easy', 3, 'val'), OF_EVENTS
    height, width = spec.size
    windows = [clip.window(i, WINDOW_NS) for i in range(len(clip))]
    images = [Frame(window.t1_ns, event_image(window, spec.fade_ms)) for window in windows]
    frames = [clip.frame(i) for i in range(len(clip))]
    seen = set()
    for seed in range(12):
        at = int(np.random.default_rng(seed).integers(1, len(clip)))
        found = sample(clip, spec, np.random.default_rng(seed))
        evidence = {part: EvidenceBuilder(spec).build(shown[at], shown)
                    for part, shown in (('evidence', frames), ('drawn', images))}
        for part, expected in evidence.items():
            assert np.abs(found[part] * STEP - expected.tensor).max() <= STEP / 2 + 1e-6
        grids = {part: voxel_tensor(windows[at], (height // 2, width // 2), VOXEL,
                                    scene_motion(windows[at], known, windows[at].t1_ns))
                 for part, known in evidence.items()}
        same = {by for by, grid in grids.items()
                if np.array_equal(found['voxel'], np.rint(255 * grid).astype(np.uint8))}
        assert same
        seen |= same
        assert set(np.unique(found['label'])) <= set(range(10))
    assert seen == {'evidence', 'drawn'}


def test_parallax_is_a_choice_for_clips_without_events(tmp_path):
    save_clips(tmp_path / 'train-frames-train-00000000-1.npz',
               [render_clip('train-frames', 0, 'train')])
    found = []
    for out, more in ((tmp_path / 'plain', []), (tmp_path / 'epipolar', ['--epipolar'])):
        cache_clips(['--clips', str(tmp_path), '--out', str(out), *more])
        (file,) = out.glob('*.evidence.npy')
        found.append(np.load(file)[0].reshape(4, PER_GAP, -1))
    np.testing.assert_array_equal(found[0][:, :7], found[1][:, :7])
    assert (found[1][:, 7] >= 0).all() and not np.array_equal(found[0][:, 7], found[1][:, 7])


def test_single_pictures_with_all_that_could_move(tmp_path):
    """From clips to a file that the runtime takes: no evidence, things at rest labelled too."""
    preset = find_preset('train-frames', distractors=(2, 2), empty=0.0)
    clips = [render_clip(preset, seed, 'train') for seed in range(2)]
    save_clips(tmp_path / 'a.npz', clips)
    cache_clips(['--clips', str(tmp_path), '--out', str(tmp_path / 'cache'),
                 '--movable'])
    names = {path.name.split('.')[1] for path in (tmp_path / 'cache').iterdir()}
    assert names == {'image', 'label'}
    label = np.load(next((tmp_path / 'cache').glob('*.label.npy')))
    shown = [int(np.unique(clip.ids).size) - 1 for clip in clips]
    assert all(0 < label[n].max() <= shown[n] for n in range(2))
    assert any(label[n].max() > clip.moving.any(0).sum() for n, clip in enumerate(clips))
    batch = Batches([tmp_path / 'cache'], np.random.default_rng(0)).take(2)
    assert batch.evidence.shape == (2, 0, *CROP) and batch.image.any(1).any(1).any(1).all()
    main(['--data', str(tmp_path / 'cache'), '--run', str(tmp_path / 'run'), '--minutes', '0.001',
          '--batch', '2', '--movable'])
    export(['--run', str(tmp_path / 'run'), '--out', str(tmp_path / 'models')])
    assert {path.name for path in (tmp_path / 'models').iterdir()} == {
        'movable_nano.onnx', 'movable_nano.json'}
    model = load_model(Config(model=str(tmp_path / 'models' / 'movable_nano.onnx'), threads=1))
    frame = clips[0].frame(0)
    found = model.detect(SyncedInput(1, '', frame, None, frame.size), StageTimes())
    assert found.size == frame.size and not found.moving.any()


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match='training.video_cache'):
        Batches([tmp_path], np.random.default_rng(0))


def test_learning_rate_rises_then_falls():
    rates = [learning_rate(progress, 1.0) for progress in (0, 0.03, 0.5, 1)]
    assert rates[0] == pytest.approx(0.05) and rates[3] == pytest.approx(0.01)
    assert rates[1] > rates[2] > rates[3]


def test_a_run_learns_and_goes_on(tmp_path):
    """Loss falls on one square; a second Run starts where the first was saved."""
    batches = Batches([folder_of(tmp_path)], np.random.default_rng(0))
    run = Run(tmp_path / 'run', SMALL, 5e-3, None)
    losses = [run.step(batches.take(2), 0.1)['foreground'] for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])
    run.save()
    again = Run(tmp_path / 'run', SMALL, 5e-3, None)
    assert again.steps == 40
    for name, value in load_file(tmp_path / 'run' / 'average.safetensors').items():
        torch.testing.assert_close(again.average.state_dict()[name], value)


def test_no_budget_trains_nothing(tmp_path):
    main(['--data', str(folder_of(tmp_path)), '--run', str(tmp_path / 'run'), '--minutes', '0'])
    assert (tmp_path / 'run' / 'average.safetensors').exists()


def test_seeds_and_steps_make_a_run(tmp_path):
    data = folder_of(tmp_path)
    for name, seed, steps in (('one', 0, 2), ('again', 0, 2), ('other', 1, 2)):
        main(['--data', str(data), '--run', str(tmp_path / name), '--batch', '2', '--seed',
              str(seed), '--steps', str(steps)])
    one, again, other = (load_file(tmp_path / name / 'net.safetensors')
                         for name in ('one', 'again', 'other'))
    state = json.loads((tmp_path / 'one' / 'state.json').read_text())
    assert state['steps'] == 2
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
