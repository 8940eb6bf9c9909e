"""Motion evidence: what moves against the camera's own motion, from a frame and others near it in time."""
