"""The table contracts (YAML): the single source of truth for columns, dtypes, units and ranges.

`recsys.contracts` loads and enforces them.
"""
