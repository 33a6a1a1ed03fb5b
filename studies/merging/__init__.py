"""Study: the average of the parameters of several networks."""
