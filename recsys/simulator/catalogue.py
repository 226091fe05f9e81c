"""What can be played: films and series with genres, years, runtimes, popularity, and titles that hint at the genre.

A *work* is a film or a series; an *item* is what is played, a film or an episode. Works of the same genres form a
*lane*: tastes speak of genres only, so within a lane choices follow popularity alone. That makes a choice among
thousands of works two cheap draws and its probability a closed form.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys import contracts
from recsys.seeding import rng
from recsys.simulator.config import SimulatorConfig
from recsys.simulator.lexicon import FIRST, GENRES, LAST, NEUTRAL_FIRST, NEUTRAL_LAST


@dataclass(frozen=True)
class Catalogue:
    """W works in L lanes, N items; works are numbered by lane, items by work.

    Arrays: `genres` (L, G), rows sum to 1; `lane` (W,); `popularity` (W,), summing to 1; `attraction` (W,), popularity
    ** bias; `first` and `episodes` (W,), the place and number of a work's items; `work` (N,); `runtime` (N,) seconds;
    `entry` (N,), the probability that who begins the work begins here. `items` is the items table, in this order.
    """

    items: pl.DataFrame
    genres: np.ndarray
    lane: np.ndarray
    popularity: np.ndarray
    attraction: np.ndarray
    first: np.ndarray
    episodes: np.ndarray
    work: np.ndarray
    runtime: np.ndarray
    entry: np.ndarray


def make_catalogue(config: SimulatorConfig) -> Catalogue:
    """The catalogue of a configuration: it depends on the seed and the catalogue's own settings, not on the users."""
    generator = rng("simulator catalogue", config.seed)
    count = config.works
    main = generator.integers(len(GENRES), size=count)
    second = (main + generator.integers(1, len(GENRES), size=count)) % len(GENRES)
    second = np.where(generator.random(count) < config.two_genres, second, main)
    pairs = np.sort(np.stack([main, second], axis=1), axis=1)  # (W, 2), in order of lanes from here on
    lanes, lane = np.unique(pairs, axis=0, return_inverse=True)
    order = np.argsort(lane, kind="stable")
    lane, pairs = lane[order], pairs[order]
    genres = np.zeros((len(lanes), len(GENRES)))
    np.add.at(genres, (np.arange(len(lanes))[:, None], lanes), 0.5)
    popularity = (1.0 + generator.permutation(count)) ** -config.popularity_skew
    popularity /= popularity.sum()
    is_series = generator.random(count) < config.series_share
    drawn = generator.integers(config.episodes_min, config.episodes_max + 1, size=count)
    episodes = np.where(is_series, drawn, 1)
    minutes = np.where(is_series, generator.integers(22, 60, size=count), generator.integers(80, 150, size=count))
    years = 1970 + (55 * generator.random(count) ** 0.7).astype(np.int64)
    titles = _titles(config, generator, pairs)
    first = np.cumsum(episodes) - episodes
    work = np.repeat(np.arange(count), episodes)
    number = np.arange(len(work)) - first[work]
    entry = config.start_anywhere / episodes[work] + (1 - config.start_anywhere) * (number == 0)
    runtime = 60.0 * (minutes[work] + np.where(is_series[work], generator.integers(-2, 3, size=len(work)), 0))
    items = _items(work, number, is_series, titles, years, pairs, runtime)
    attraction = popularity**config.popularity_bias
    return Catalogue(items, genres, lane, popularity, attraction, first, episodes, work, runtime, entry)


def _titles(config: SimulatorConfig, generator: np.random.Generator, pairs: np.ndarray) -> list[str]:
    """Two words each, drawn from the lexicon of one of the work's genres or from neutral words; repeats get a
    number."""
    own = generator.random((len(pairs), 2)) < config.lexical
    picked = generator.integers(2, size=(len(pairs), 2))
    place = generator.random((len(pairs), 2))
    seen: dict[str, int] = {}
    titles = []
    for row, pair in enumerate(pairs):
        words = []
        for side, (lexicon, neutral) in enumerate(((FIRST, NEUTRAL_FIRST), (LAST, NEUTRAL_LAST))):
            choices = (lexicon[GENRES[pair[picked[row, side]]]] if own[row, side] else neutral).split()
            words.append(choices[int(place[row, side] * len(choices))])
        title = " ".join(words)
        seen[title] = seen.get(title, 0) + 1
        titles.append(title if seen[title] == 1 else f"{title} {seen[title]}")
    return titles


def _items(
    work: np.ndarray,
    number: np.ndarray,
    is_series: np.ndarray,
    titles: list[str],
    years: np.ndarray,
    pairs: np.ndarray,
    runtime: np.ndarray,
) -> pl.DataFrame:
    """The items table, ordered by item_id: "w000012" for films, "w000012e03" for episodes."""
    named = [[GENRES[place] for place in dict.fromkeys(pair)] for pair in pairs.tolist()]
    rows = [
        {
            "item_id": f"w{w:06d}e{n + 1:02d}" if is_series[w] else f"w{w:06d}",
            "title": f"{titles[w]}: Episode {n + 1}" if is_series[w] else titles[w],
            "kind": "episode" if is_series[w] else "film",
            "parent_id": f"w{w:06d}" if is_series[w] else None,
            "series": titles[w] if is_series[w] else None,
            "year": int(years[w]),
            "genres": named[w],
            "tags": [],
            "runtime_s": float(seconds),
        }
        for w, n, seconds in zip(work.tolist(), number.tolist(), runtime.tolist(), strict=True)
    ]
    schema = contracts.schema("items")
    frame = pl.DataFrame(rows, schema={name: schema[name] for name in rows[0]})
    return contracts.check(contracts.conform(frame, "items"), "items")
