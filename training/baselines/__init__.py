"""Classical baselines: what a learned model must beat, one method per file, all used alike.

`homography`: flow minus the camera's homography; `mog2`: background subtraction;
`events`: counts of events after the global motion is undone.
"""

from training.baselines.background import BackgroundBaseline
from training.baselines.baseline import Baseline
from training.baselines.event_counts import EventCountBaseline
from training.baselines.homography import HomographyBaseline

BASELINES: dict[str, type[Baseline]] = {
    'homography': HomographyBaseline,
    'mog2': BackgroundBaseline,
    'events': EventCountBaseline,
}

__all__ = ['BASELINES', 'BackgroundBaseline', 'Baseline', 'EventCountBaseline',
           'HomographyBaseline']
