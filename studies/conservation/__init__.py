"""Study: conservation laws in training."""
