"""Study: Bayesian networks, by variational inference and by Markov chains."""
