"""Data sets as memory-mapped arrays, so that the training loop never waits for rendering or voxels."""
