"""Learned verbalization for recommendation by language models: the engine above `recsys`."""

__version__ = "0.1.0"
