"""What features know of the images.

Ridge probes on linear features (A7, A8); of trained encoders linear probes, neighbours, fine-tuning, corruptions, shape
bias and dense heads (A12 to A15, B7 to B11).
"""
