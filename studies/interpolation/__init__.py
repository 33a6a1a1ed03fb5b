"""Study: the loss from the initialization to the trained network."""
