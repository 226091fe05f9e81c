"""Consecutive episodes of one series as one phrase, "5 episodes of Dark", as Polars expressions.

A binge then costs the tokens of one title. Only neighbours in the history are joined, so the order of interests stays;
what is counted is distinct episodes, so that an episode resumed three times is not "3 episodes". A run of one episode,
and an event without a series, keeps its own title.
"""

import polars as pl

from verbalize.verbalizers.template_expressions import EVENT_SEPARATOR, field


def event_runs(title: pl.Expr) -> pl.Expr:
    """For use inside `history.list.eval`: one text per run of events of the same series, `title` for a single one.

    A run's number of distinct episodes is the difference, between its first event and the next run's, of how many
    (run, item) pairs have been seen so far.
    """
    series = field("series")
    starts = ~(series == series.shift()).fill_null(False)
    seen = pl.struct(starts.cum_sum().alias("run"), field("item_id")).is_first_distinct().cum_sum()
    begun, texts = seen.filter(starts), title.filter(starts)
    episodes = begun.shift(-1).fill_null(seen.last() + 1) - begun
    phrase = pl.concat_str(episodes.cast(pl.String), pl.lit(" episodes of "), series.filter(starts))
    return pl.when(episodes > 1).then(phrase).otherwise(texts)


def titles_by_series(history: pl.Expr, title: pl.Expr) -> pl.Expr:
    """Titles of a history, oldest first, runs of episodes of one series joined: "Heat; 5 episodes of Dark; Alien"."""
    return history.list.eval(event_runs(title)).list.join(EVENT_SEPARATOR)
