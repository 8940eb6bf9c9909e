"""Does the whole chain run? Render, train, stop and resume, export, score: a little of each, in a passing folder."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from mos_perception.engine.card import load_card
from mos_perception.engine.ort import OrtEngine
from mos_perception.models.dimos.model import DimosModel
from training.datasets.online import OnlineSet
from training.evaluate import evaluate
from training.export import export
from training.recipes import Recipe
from training.scenes import render_clip
from training.state import load, start
from training.train import fit

STEPS, CLIPS = 12, 2


def smoke(recipe: Recipe) -> int:
    """Run every stage with `recipe` and print what each took, s; 0 if all ran. The scores mean nothing."""
    begun = time.monotonic()

    def done(stage: str) -> None:
        nonlocal begun
        print(f'smoke {recipe.name}: {stage} {time.monotonic() - begun:.1f} s', flush=True)
        begun = time.monotonic()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with OnlineSet('easy', recipe, workers=0) as data:
            fit(start(recipe), data, recipe, folder, steps=STEPS // 2, log_seconds=0)
            done('rendered and trained')
            state = fit(load(folder, recipe), data, recipe, folder, steps=STEPS, log_seconds=0)
        done(f'resumed to step {state.step}')
        parity = export(folder, recipe, folder / 'smoke.onnx')
        done(f'exported, torch against ONNX Runtime {max(parity.values()):.1e}, in')
        model = DimosModel(OrtEngine(folder / 'smoke.onnx', 1), load_card(folder / 'smoke.onnx'))
        scores = evaluate(model, [render_clip('easy', seed, 'test') for seed in range(CLIPS)], recipe.min_pixels)
        done(f'scored {len(scores)} methods on {CLIPS} clips in')
    return 0
