"""How the camera moves, and what does not move with it: from frames near in time, and for events.
"""
