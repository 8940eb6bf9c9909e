"""DIMOS (CVPR 2026): which objects move, from one frame and its event window."""
