"""How bytes travel between processes: shared memory for whole frames, and an allocator that keeps
its pages.

The default Fast DDS segment (512 kB) cannot hold a frame: its fragments are dropped and repaired
over and over. And glibc hands every fresh megabyte buffer back to the kernel. Together they cost
more than 10 ms per 640x480 frame. `prepare_transport` must run before `rclpy.init`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

PROFILE = 'fastdds_shm.xml'
# up to Jazzy; from Kilted on
VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
SEGMENT_BYTES = 64 << 20          # of one process, as in the profile
SHARED_MEMORY = Path('/dev/shm')
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1


def profile_path() -> Path | None:
    """The shared-memory profile in the source tree or the installed share folder; None where there
    is none.
    """
    roots = [Path(__file__).resolve().parents[2]]
    for prefix in [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]:
        if prefix:
            roots.append(Path(prefix) / 'share' / 'mos_perception')
    for root in roots:
        path = root / 'config' / PROFILE
        if path.is_file():
            return path
    return None


def environment() -> dict[str, str]:
    """The variables that select the profile: none if the user chose one, or if shared memory is too
    small.

    Four processes need room (driver or player, node, recorder, viewer); containers often give 64
    MB.
    """
    path = profile_path()
    if path is None or any(name in os.environ for name in VARIABLES):
        return {}
    if not SHARED_MEMORY.is_dir() or shutil.disk_usage(SHARED_MEMORY).free < 4 * SEGMENT_BYTES:
        return {}
    return dict.fromkeys(VARIABLES, str(path))


def prepare_transport() -> None:
    """Set profile and allocator of this process. Harmless where either is not available."""
    os.environ.update(environment())
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 256 << 20)
