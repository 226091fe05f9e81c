"""Experience: one persistent library of trajectories and lessons, its retrieval, its evolution."""
