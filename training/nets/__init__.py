"""Networks written from the papers' equations. Shapes: B batch, C channels, H W pixels, Q queries, L decoder layers."""
