"""What counts as an engaged target: a high rating, a play watched far enough, or an event type such as a click.

The rule is named in the recipe (or by the source's mapping) and never guessed.
"""

from dataclasses import dataclass

import polars as pl

from recsys.errors import InputError


@dataclass(frozen=True)
class EngagedConfig:
    """An event is engaged when it meets any of the criteria that are set.

    `rating_at_least` is on the source's own scale (4 of 5, 7 of 10); `completion_at_least` is a share in [0, 1];
    `event_types` engage by themselves, whatever their rating.
    """

    rating_at_least: float | None = None
    completion_at_least: float | None = None
    event_types: tuple[str, ...] = ()


def engaged(config: EngagedConfig) -> pl.Expr:
    """Boolean expression over the columns of `events`. Raises InputError when no criterion is set."""
    criteria = []
    if config.rating_at_least is not None:
        criteria.append(pl.col("rating") >= config.rating_at_least)
    if config.completion_at_least is not None:
        criteria.append(pl.col("completion") >= config.completion_at_least)
    if config.event_types:
        criteria.append(pl.col("event_type").is_in(list(config.event_types)))
    if not criteria:
        raise InputError(
            "engaged: (nothing)",
            "what counts as an engaged target must be named",
            "set engaged.rating_at_least, engaged.completion_at_least or engaged.event_types",
        )
    return pl.any_horizontal(criteria).fill_null(False)
