"""What `python -m bench.gpu` does on a GPU, done with the kernels' source on the CPU."""

import shutil

import numpy as np
import pytest
from shim_driver import ShimDriver, compile_shim

from bench import gpu, gpu_kernels

pytestmark = pytest.mark.skipif(
    shutil.which('g++') is None, reason='g++ is not installed: it compiles the kernels'
)


@pytest.fixture(scope='module')
def device(tmp_path_factory):
    driver = ShimDriver(compile_shim(tmp_path_factory.mktemp('shim') / 'kernels.so', '-O2'))
    return gpu_kernels.Gpu(driver, driver.stream(), dict.fromkeys(('voxel', 'evt3', 'frame')))


def test_every_kernel_is_compared_and_equal(device):
    found = gpu_kernels.compare(device, (0, 1, 3000))
    assert [name for name, same in found.items() if not same] == []
    assert len(found) == 3 * (2 * 3 + 1) + 2 + 2 + 2
    assert {
        'voxel_events',
        'voxel_mono',
        'voxel_largest',
        'voxel_normalise',
        'evt3_scan',
        'evt3_join',
        'evt3_scatter',
        'frame_image',
        'frame_quality',
        'frame_claim',
    } == set(device.driver.launched)


def test_a_wrong_kernel_is_seen(device, monkeypatch):
    real = ShimDriver.launch

    def launch(self, module, kernel, grid, block, arguments, stream, shared=0):
        if kernel == 'voxel_mono':  # one event too few
            arguments = [*arguments]
            arguments[3] = device.up(np.array([2999], np.int32))
        real(self, module, kernel, grid, block, arguments, stream, shared)
    monkeypatch.setattr(ShimDriver, 'launch', launch)
    found = gpu_kernels.compare(device, (0, 3000))
    assert [name for name, same in found.items() if not same] == ['mono 3000']


def test_measuring_runs(device, monkeypatch):
    monkeypatch.setattr(gpu_kernels, 'REPEATS', 2)
    found = gpu_kernels.measure(device, (2000,), 1 << 20)
    assert set(found) == {'fill_gb_s', 'random 2000', 'clustered 2000'}
    assert all(value > 0 for value in found['random 2000'].values())


def test_without_a_gpu_nothing_is_claimed(monkeypatch, capsys):
    from mos_perception.errors import EngineError

    def absent():
        raise EngineError('no NVIDIA driver here')
    monkeypatch.setattr(gpu, 'find_gpu', absent)
    assert gpu.main([]) == 3 and 'no GPU: nothing was measured' in capsys.readouterr().err
