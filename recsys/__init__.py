"""The ground floor: logs, models, recommenders, metrics. It knows nothing of verbalizers or training."""
