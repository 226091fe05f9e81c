"""The front door of evaluation: rank (`decisions`), compare (`comparison`), cut (`slices`), control (`controls`),
bound (`headroom`).
"""

from recsys.comparison import Comparison, best_against_all, compare, summarise
from recsys.controls import SurvivingGain, share_of_distinct, shuffle_texts_between_users, surviving_gain
from recsys.decisions import TextScorer, aligned_texts, decide, decide_in_chunks, own_slates
from recsys.headroom import Headroom, pool_headroom
from recsys.outcomes import Arm, arms, outcomes
from recsys.slices import (
    by_history_length,
    by_popularity_tercile,
    by_target_kind,
    by_target_position,
    summarise_slices,
)

__all__ = [
    "Arm",
    "Comparison",
    "Headroom",
    "SurvivingGain",
    "TextScorer",
    "aligned_texts",
    "arms",
    "best_against_all",
    "by_history_length",
    "by_popularity_tercile",
    "by_target_kind",
    "by_target_position",
    "compare",
    "decide",
    "decide_in_chunks",
    "outcomes",
    "own_slates",
    "pool_headroom",
    "share_of_distinct",
    "shuffle_texts_between_users",
    "summarise",
    "summarise_slices",
    "surviving_gain",
]
