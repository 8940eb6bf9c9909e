"""`mos build | doctor`: what concerns the machine that runs the model."""

from __future__ import annotations

import argparse
import json

from rich.console import Console

from mos_perception.errors import EngineError


def build_command(args: argparse.Namespace) -> None:
    """`mos build`: the engine of each graph of a model for this machine's GPU, into the cache.

    Ctrl-C cancels, nothing is written.
    """
    from mos_perception.engine.build import build
    from mos_perception.engine.cache import Cache
    from mos_perception.engine.model_files import find_model, graphs_of
    console = Console(stderr=True)

    def told(phase: str, step: int, steps: int) -> bool:
        if step == steps:
            console.print(f'{phase}: done', highlight=False)
        return True

    for graph in graphs_of(find_model(args.model)):
        path, built = build(graph, args.backend, Cache(), told, args.force)
        print(f'{"wrote" if built else "already there:"} {path}')


def doctor_command(args: argparse.Namespace) -> None:
    """`mos doctor`: a line per thing looked at.

    Raises EngineError if the asked backend cannot run the model.
    """
    from mos_perception.commands.doctor import examine
    findings = examine(args.model, args.backend)
    for finding in findings:
        print(f'{finding.state:7} {finding.what}: {finding.text}')
    if args.json is not None:
        args.json.write_text(json.dumps([vars(finding) for finding in findings], indent=1) + '\n')
    if broken := [finding.what for finding in findings if finding.state == 'broken']:
        raise EngineError(f'broken: {", ".join(broken)}: see above')
