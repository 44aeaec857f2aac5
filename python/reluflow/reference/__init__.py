"""The kernels in NumPy: same names and signatures as the compiled ones, written to be read.

They are the oracle that the compiled kernels are tested against, and ``backend="numpy"``.
"""
