"""Every exception this package raises on purpose.

A message says what is wrong, the value seen, the limit, and the remedy. Trouble with one
frame or one packet is not an exception for the caller: `pipeline.py` returns it as `Skip` or
`Fault`. Trouble with the configuration is an exception when the node is configured.
"""

import os
import shutil


class MosError(Exception):
    """Base of every error of this package."""


class ConfigError(MosError):
    """A parameter, a parameter file or a command line that cannot be used."""


class DecodeError(MosError):
    """An event packet that breaks its encoding's rules."""


class FrameError(MosError):
    """An image message that contradicts itself or has an encoding we do not know."""


class ImuError(MosError):
    """An IMU message, a camera's calibration or a transform that cannot be used."""


class SyncError(MosError):
    """A frame or packet that cannot be placed in time."""


class EngineError(MosError):
    """A model file, its card or its runtime that cannot be used, or a failed inference."""


class DeviceMemoryError(EngineError):
    """GPU memory is full; tells how much was free."""


class DeviceLostError(EngineError):
    """The GPU cannot be used by this process any more; a new process may."""


class BagError(MosError):
    """A recording that cannot be read or written; names the file and the topic."""


class DatasetError(MosError):
    """Files of a data set that cannot be read or written; names the file."""


class MissingLibraryError(DatasetError):
    """A format needs a library that is not installed; names what to install."""


class UnsafeFileError(DatasetError):
    """A file that holds code where data belongs; nothing of it was run."""


def mos_command(arguments: str) -> str:
    """`mos ARGUMENTS` as it is called here, for remedies in messages.

    A sourced workspace does not have `mos` on its PATH; `ros2 run` finds it.
    """
    here = shutil.which('mos') or 'ROS_DISTRO' not in os.environ
    return f'mos {arguments}' if here else f'ros2 run mos_perception mos {arguments}'
