"""Two processes of a run against each other."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from squares import RECIPE, square_clip

from training.datasets.packed import pack

PAIR = """
import sys, torch
from dataclasses import replace
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from squares import FULL
from training.datasets.packed import PackedSet
from training.distributed import init_distributed, rank_and_world_size
from training.state import start
from training.loop import fit
torch.set_num_threads(1)
init_distributed()
folder, rank = Path(sys.argv[1]), rank_and_world_size()[0]
with PackedSet(folder / 'set', replace(FULL, seed=FULL.seed + rank)) as data:
    state = fit(start(FULL), data, FULL, folder / f'run{rank}', minutes=0.02)
parameters = [p.detach() for p in state.network.parameters()]
torch.save((state.step, parameters), folder / f'{rank}.pt')
torch.distributed.destroy_process_group()
"""


def test_two_processes_take_the_same_steps(tmp_path):
    """Different samples, one model: equal weights after a run that ends by the clock.

    The first process alone saves.
    """
    pack((square_clip(seed) for seed in range(4)), 4, tmp_path / 'set', RECIPE, 'squares')
    (tmp_path / 'run.py').write_text(PAIR)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    here, runs = Path(__file__).resolve(), []
    command = [sys.executable, str(tmp_path / 'run.py'), str(tmp_path), str(here.parent),
               str(here.parents[2])]
    for rank in range(2):
        (tmp_path / f'run{rank}').mkdir()
        world = {'RANK': str(rank), 'WORLD_SIZE': '2', 'LOCAL_RANK': str(rank),
                 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
        runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     text=True, env={**os.environ, **world}))
    for run in runs:
        errors = run.communicate(timeout=300)[1]
        assert run.returncode == 0, errors[-2000:]
    results = [torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in range(2)]
    (steps, first), (others, second) = results
    assert steps == others > 0 and all(map(torch.equal, first, second))
    assert (tmp_path / 'run0' / 'checkpoint.json').exists()
    assert not list((tmp_path / 'run1').iterdir())
