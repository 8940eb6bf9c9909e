"""`dimos_node` whose GPU is the kernels' source on the CPU and whose driver fails as told.

    python faulty_node.py KERNELS.so CODES [ROS arguments]     CODES: as 0,0,700
"""

import sys

from shim_driver import FaultyDriver, ShimEngine

from mos_perception.models.dimos import cuda, load
from mos_perception.ros.node import main

library, codes = sys.argv[1:3]
driver = FaultyDriver(library, [int(code) for code in codes.split(',')])
load.load_engine = lambda path, *_: ShimEngine(path, driver)
cuda.DimosCuda.__init__.__defaults__ = (lambda path, capability: b'',)
sys.exit(main(sys.argv[3:]))
