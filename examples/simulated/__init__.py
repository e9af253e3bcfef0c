"""How the foundation models of the simulated study are trained."""
