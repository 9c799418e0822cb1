"""Rent a GPU, train on it, bring the weights home, leave nothing behind."""

__version__ = "0.1.0"
