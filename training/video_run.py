"""A run of `training.train_video` read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from training.nets.gmos_nano import GmosNano, GmosNanoConfig

STATE = 'state.json'


def load_run(run: Path) -> tuple[GmosNano, dict[str, Any]]:
    """The averaged weights of a run, in evaluation mode, and its `state.json`."""
    state = json.loads((run / STATE).read_text(encoding='utf-8'))
    config = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in state['config'].items()
    }
    network = GmosNano(GmosNanoConfig(**config))
    network.load_state_dict(load_file(run / 'average.safetensors'))
    return network.eval(), state
