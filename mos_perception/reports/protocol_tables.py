"""Tables of the scores of video protocols: MOS-I, DAVIS' J and F, boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

_TITLES = {'unsupervised': 'per object (DAVIS unsupervised)', 'grouped': 'all objects as one',
           'boxes': 'boxes (MoCA)'}


def mos_i_table(summaries: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Table:
    """MOS-I of every matching and mode, as `MosI.all_summaries` has them."""
    table = Table(title='MOS-I')
    for name in ('matched by', 'mode', 'J_mov', 'mtIoU', 'FP_count'):
        table.add_column(name, justify='left' if name in ('matched by', 'mode') else 'right')
    for matching, modes in summaries.items():
        for mode, values in modes.items():
            table.add_row(matching, mode, *(_shown(value) for value in values.values()))
    return table


def protocol_tables(summary: Mapping[str, Any]) -> list[Table]:
    """A table of each protocol in `FolderEvaluator.summary`."""
    found = []
    for key, title in _TITLES.items():
        if key in summary:
            table = Table(title=title)
            for name in summary[key]:
                table.add_column(name, justify='right')
            table.add_row(*(_shown(value) for value in summary[key].values()))
            found.append(table)
    if 'mos_i' in summary:
        found.append(mos_i_table(summary['mos_i']))
    return found


def _shown(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'
