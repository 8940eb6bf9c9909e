"""Networks, written from the papers' equations.

Shapes: B batch, C channels, H W pixels, Q queries, L decoder layers.

DIMOS is the CVPR 2026 paper; "as released", here and in the losses, is its public code, the GitHub
repository Neuromorphic-Electronics-Photonics-Lab/DIMOS-Moving-Instance-Segmentation-CVPR2026.
EvInsMOS is its predecessor: Wan et al., "Instance-Level Moving Object Segmentation from a Single
Image with Events", IJCV 2025.
"""
