"""How good are samples? Features (a network) → statistics → number.

Numbers about a whole data set come back as Python floats, numbers about each picture as one tensor. Sums are taken in
float64 on the device of the inputs.
"""
