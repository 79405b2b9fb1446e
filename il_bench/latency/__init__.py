"""How long one call of a policy takes, measured so that it can be compared: on the CPU, CUDA and MPS."""
