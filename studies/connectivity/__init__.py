"""Study: the loss between two networks of a population."""
