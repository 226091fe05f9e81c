"""Agents in text environments: environments, rollouts, training with and without experience."""
