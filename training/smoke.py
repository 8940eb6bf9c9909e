"""Does the whole chain run? Render, train, stop and resume, export, score: a little of each.

What learns from pairs of frames is not exported; a GMOS sees random encoders of its sizes with few
blocks, and `mos import gmos` exports it.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from mos_perception.config import Config
from mos_perception.models import load_model
from training.datasets.frame_pairs import PairSet, pack_pairs
from training.datasets.gmos_features import GmosSet, cache, random_encoders
from training.datasets.online import OnlineSet
from training.evaluate import evaluate
from training.evaluate_mosis import score
from training.export import export
from training.loop import fit
from training.recipes import Training
from training.recipes_gmos import GmosRecipe
from training.recipes_mosis import MosisRecipe
from training.scenes import render_clip
from training.scenes.moving_shapes import THESIS
from training.state import load, start

STEPS, CLIPS = 12, 2


def smoke(recipe: Training) -> int:
    """Run every stage with `recipe` in a passing folder and print what each took, s.

    0 if all ran. The scores mean nothing.
    """
    if isinstance(recipe, MosisRecipe):
        return _smoke_pairs(recipe)
    if isinstance(recipe, GmosRecipe):
        return _smoke_gmos(recipe)
    begun = time.monotonic()

    def report(stage: str) -> None:
        nonlocal begun
        print(f'smoke {recipe.name}: {stage} {time.monotonic() - begun:.1f} s', flush=True)
        begun = time.monotonic()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with OnlineSet('easy', recipe, workers=0) as data:
            fit(start(recipe), data, recipe, folder, steps=STEPS // 2, log_seconds=0)
            report('rendered and trained')
            resumed = load(folder, recipe)
            state = fit(resumed, data, recipe, folder, steps=STEPS, log_seconds=0)
        report(f'resumed to step {state.step}')
        path = folder / 'smoke.onnx'
        differences = export(folder, recipe, path)
        report(f'exported, torch against ONNX Runtime {max(differences.values()):.1e}, in')
        model = load_model(Config(model=str(path), backend='onnxruntime', threads=1))
        clips = [render_clip('easy', seed, 'test') for seed in range(CLIPS)]
        scores = evaluate(model, clips, recipe.min_pixels)
        report(f'scored {len(scores)} methods on {CLIPS} clips in')
    return 0


def _smoke_pairs(recipe: MosisRecipe) -> int:
    with tempfile.TemporaryDirectory() as name:
        data, run = Path(name) / 'data', Path(name) / 'run'
        run.mkdir()
        pack_pairs(replace(THESIS, size=recipe.size, frames=3), 2, data)
        pairs = PairSet(data, recipe)
        fit(start(recipe), pairs, recipe, run, steps=1, log_seconds=0)
        state = fit(load(run, recipe), pairs, recipe, run, steps=2, log_seconds=0)
        scores = score(state.network.eval(), pairs, pairs)
        print(f'smoke {recipe.name}: rendered, trained, resumed to step {state.step}, scored '
              f'{len(scores)} values', flush=True)
    return 0


def _smoke_gmos(recipe: GmosRecipe) -> int:
    recipe = replace(recipe, batch=1,
                     geometry=replace(recipe.geometry, encoder_depth=1, decoder_depth=2))
    with tempfile.TemporaryDirectory() as name:
        data, run = Path(name) / 'data', Path(name) / 'run'
        run.mkdir()
        clips = [('clip', render_clip('video-long', 0))]
        made = cache(clips, 2, recipe, random_encoders(recipe), data, 'random encoders')
        features = GmosSet(data, recipe)
        fit(start(recipe), features, recipe, run, steps=1, log_seconds=0)
        state = fit(load(run, recipe), features, recipe, run, steps=2, log_seconds=0)
    print(f'smoke {recipe.name}: rendered, encoded {made} windows, trained, resumed to step '
          f'{state.step}', flush=True)
    return 0
