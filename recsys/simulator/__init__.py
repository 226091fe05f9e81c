"""A made-up streaming service whose truth is known: households, tastes, noise, and the best anyone could do.

`config` holds every rate, `catalogue` what can be played, `households` who plays and what they like, `generate` the
events and, apart from them, their truth, `write` any number of users in bounded memory, `source` the same behind the
door of the other logs, `bayes` the Bayes-optimal ranking of a slate.
"""
