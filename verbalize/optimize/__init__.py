"""Optimising a verbalizer: rewards, action and rewrite policies, warm start, training with limits and resumption."""
