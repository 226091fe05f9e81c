"""Interaction logs to examples: sources -> canonical events -> histories, discovery labels, splits, slates."""
