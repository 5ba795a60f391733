"""Pure numpy on shapes: boxes, masks, brush strokes, key frames and segments of time."""
