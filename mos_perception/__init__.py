"""mos_perception: which things move, per frame, from cameras and event cameras."""

__version__ = '0.1.0'
