"""How the camera moves, and what does not move with it."""
