"""DIMOS (CVPR 2026): which objects move, from one frame and its event window.

Inputs `image` (1, 3, H, W), `voxel` (1, C, H, W) float32; a missing modality is all zero. Outputs
`class_logits` (1, Q, 3) {static, moving, no object}, `mask_logits` (1, Q, h, w), `boxes` (1, Q, 4)
px at network size, `embeddings` (1, Q, D).
"""
