"""The class-incremental experiment: classes arrive in steps, a small memory is filled, networks are trained on it.

It hands on no names: a command line that only prints its help must not wait for PyTorch.
"""
