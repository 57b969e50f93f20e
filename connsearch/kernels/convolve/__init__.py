"""Convolutions with constant weights, for inference: 1x1 with what comes before it, 3x3 by Winograd's way."""
