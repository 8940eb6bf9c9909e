"""GMOS' members (frames only): which objects move, from a frame and the frames around it."""
