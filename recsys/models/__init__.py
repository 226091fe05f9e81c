"""The only place that touches weights: assets, loading, adapters, tokenisation, chat format, packed scoring."""
