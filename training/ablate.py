"""What each part of DIMOS brings: the paper's ladder, equal budgets, several seeds, one table.

`python -m training.ablate --data runs/set --out runs/ablation --steps 20000 --seeds 3 --clips 20`
trains every rung for every seed (going on where it was stopped), scores it on held-out clips and
writes ablation.json and ablation.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from bench.document import table
from mos_perception.config import Config
from mos_perception.errors import ConfigError
from mos_perception.evaluation.score import Scorer
from mos_perception.models import Model, load_model
from training.command import command
from training.datasets.packed import PackedSet
from training.evaluate import MethodScores, methods, score_clip
from training.export import export
from training.loop import fit
from training.losses.alignment import AlignmentWeights
from training.recipes import RECIPES, Recipe
from training.scenes import Clip, render_clip
from training.scenes.catalog import scene_name
from training.state import METADATA, load, start

# mIoU_ins on MouseSIS, in %, of the ablation in the DIMOS paper
PAPER = {
    'baseline': 60.47,
    '+ flow': 62.54,
    'EvInsMOS': 62.54,
    '+ box': 63.46,
    '+ dual disentanglement': 68.11,
    '+ translation': 69.23,
    '+ adversarial': 70.25,
}
COLUMNS = ('mIoU_ins', 'mIoU_strict', 'mIoU01', 'AP_released')

Results = dict[str, dict[str, list[dict[str, float | None]]]]
"""Per preset and rung, the scores of each seed."""


def ladder(recipe: Recipe) -> dict[str, Recipe]:
    """The paper's six rungs, each the one before and a part more; `recipe` is the last.

    And three others: EvInsMOS is "+ flow" and its own contrast between frames; "+ box, in pairs"
    tells what half as many different scenes in a batch cost, which every contrast pays; "projected
    fusion" is the last rung with both modalities projected to the first scale's channels before
    they are fused.

    Every rung sees as many images a step: a pair counts as two. No modality is dropped: that is our
    addition, and would hide what the rest does.
    """
    last = replace(recipe, augment=replace(recipe.augment, drop_image=0.0, drop_events=0.0))
    weights, alignment = last.weights, last.alignment
    two_encoders = replace(last.net, disentangled=False)
    no_box = replace(weights, box=0.0)
    box = replace(last, net=two_encoders, alignment=AlignmentWeights(), frames=1,
                  batch=last.batch * last.frames)
    rungs = {
        'baseline': replace(box, weights=replace(no_box, flow=0.0)),
        '+ flow': replace(box, weights=no_box),
        'EvInsMOS': replace(last, net=two_encoders, weights=no_box,
                            alignment=AlignmentWeights(contrast=alignment.contrast)),
        '+ box': box,
        '+ dual disentanglement': replace(
            last, alignment=replace(alignment, translation=0.0, adversarial=0.0)),
        '+ translation': replace(last, alignment=replace(alignment, adversarial=0.0)),
        '+ adversarial': last,
        '+ box, in pairs': replace(last, net=two_encoders, alignment=AlignmentWeights()),
        'projected fusion': replace(
            last, net=replace(last.net, fusion_width=last.net.channels[0])),
    }
    return {name: replace(rung, name=f'{recipe.name} {name}') for name, rung in rungs.items()}


def claim(folder: Path, wanted: dict) -> None:
    """Note what the folder's run is for. Raises ConfigError if it was begun for something else."""
    note, text = folder / 'run.json', json.dumps(wanted, indent=1)
    if note.exists() and note.read_text() != text:
        raise ConfigError(f'{folder} holds a run with other steps, data, clips or recipe '
                          '(run.json): give another --out, or delete it')
    _replace_text(note, text)


def train(recipe: Recipe, data: Path, folder: Path, steps: int) -> Model:
    """Train (or go on with) one recipe to `steps` and export it; nothing is done twice."""
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, {'steps': steps, 'data': data.name, 'recipe': asdict(recipe)})
    path = folder / 'model.onnx'
    if not path.exists():
        with PackedSet(data, recipe) as samples:
            resume = (folder / METADATA).exists()
            state = load(folder, recipe) if resume else start(recipe)
            fit(state, samples, recipe, folder, steps=steps, save_minutes=2,
                command='training.ablate')
        export(folder, recipe, path)
    return load_model(Config(model=str(path), backend='onnxruntime', threads=1))


def score(model: Model, recipe: Recipe, clips: list[Clip],
          path: Path) -> dict[str, float | None]:
    """The scores on the clips with frames and events, from the file `path` if they are there."""
    if path.exists():
        return json.loads(path.read_text())
    scores = MethodScores(Scorer(recipe.min_pixels))
    for clip in clips:
        score_clip(scores, methods(model)['frames + events'], clip)
    _replace_text(path, json.dumps(scores.values()))
    return scores.values()


def as_markdown(results: Results, about: str) -> str:
    """Per preset: mean and standard deviation over the seeds per rung, beside the paper's."""
    parts = [f'# Ablation\n\nMade by `python -m training.ablate`; do not edit.\n\n{about}\n']
    for preset, rungs in results.items():
        rows = []
        for name, runs in rungs.items():
            values = np.array([_percent(scores) for scores in runs])
            cells = [f'{mean:.1f} +- {deviation:.1f}'
                     for mean, deviation in zip(values.mean(0), values.std(0))]
            paper = f'{PAPER[name]:.2f}' if name in PAPER else '-'
            rows.append([name, *cells, str(len(runs)), paper])
        head = ['part', *COLUMNS, 'seeds', 'paper: mIoU_ins on MouseSIS']
        parts.append(f'## {preset}\n\n' + table(head, rows))
    return '\n'.join(parts)


def climb(args: argparse.Namespace) -> Results:
    """Train and score every rung for every seed."""
    clips = {preset: [render_clip(preset, seed, 'test') for seed in range(args.clips)]
             for preset in args.presets}
    results: Results = {preset: {} for preset in clips}
    rungs = ladder(RECIPES[args.recipe])
    # seed by seed: a run that is stopped early still compares all rungs
    for number in range(args.seeds):
        for name, recipe in rungs.items():
            print(f'{name}, seed {number + 1} of {args.seeds}', flush=True)
            folder = args.out / f'{"_".join(re.findall("[A-Za-z]+", name))}_{number}'
            recipe = replace(recipe, seed=recipe.seed + number)
            model = train(recipe, args.data, folder, args.steps)
            for preset, scenes in clips.items():
                path = folder / f'scores_{preset}_{args.clips}.json'
                found = score(model, recipe, scenes, path)
                results[preset].setdefault(name, []).append(found)
    return results


@command('ablate')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description='Train and score the ladder of DIMOS parts.')
    option = parser.add_argument
    option('--recipe', choices=sorted(RECIPES), default='dimos_nano_full')
    option('--data', type=Path, required=True, help='packed set (training.datasets.packed)')
    option('--out', type=Path, required=True)
    option('--steps', type=int, required=True)
    option('--seeds', type=int, default=3)
    option('--presets', type=scene_name, nargs='+', default=['mid', 'easy'])
    option('--clips', type=int, default=20)
    option('--threads', type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    results = climb(args)
    about = (f'{args.steps} steps of {args.recipe} each, {args.seeds} seeds, trained on '
             f'{args.data.name}, scored on {args.clips} clips of each preset, split test; rendered '
             'scenes only. In %.')
    text = json.dumps({'about': about, 'results': results}, indent=1)
    (args.out / 'ablation.json').write_text(text)
    (args.out / 'ablation.md').write_text(as_markdown(results, about))
    print(as_markdown(results, about))
    return 0


def _percent(scores: dict[str, float | None]) -> list[float]:
    return [100 * (scores[column] or 0.0) for column in COLUMNS]


def _replace_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    part = path.with_suffix('.part')
    part.write_text(text)
    os.replace(part, path)


if __name__ == '__main__':
    sys.exit(main())
