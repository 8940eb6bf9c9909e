"""What is wrong with a folder of data: named findings, never a traceback. `mos check-data`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from mos_perception.formats import FORMATS, detect, module
from mos_perception.formats.findings import DataFinding, Report


def check_data(path: str | Path, form: str = 'auto') -> list[DataFinding]:
    """All findings on what lies at `path`; `form` a format's name or 'auto'. Never raises."""
    report, path = Report(), Path(path)
    with report.guard(path):
        if not path.exists():
            report.add('missing-file', path, 'there is nothing')
            return report.findings
        form = _guess(path, report) if form == 'auto' else form
        if form in FORMATS:
            module(form).inspect(path, report)
    return report.findings


def findings_table(findings: Iterable[DataFinding]) -> Table:
    """A table to print."""
    shown = Table(title='what is wrong')
    for column in ('level', 'name', 'file', 'detail', 'remedy'):
        shown.add_column(column, overflow='fold')
    for finding in findings:
        shown.add_row(finding.level, finding.name, finding.file, finding.detail, finding.remedy)
    return shown


def _guess(path: Path, report: Report) -> str:
    """The format, also where all its files are damaged; '' (and a finding) where none fits."""
    for name in FORMATS:
        with report.guard(path):
            if module(name).find(path):
                return name
    if path.suffix == '.npz' or any(path.glob('*.npz')):
        return 'evimo'
    with report.guard(path, 'unknown-layout'):
        detect(path)
    return ''
