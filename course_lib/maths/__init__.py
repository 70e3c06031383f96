"""Pure functions of tensors: densities and the distances between them."""
