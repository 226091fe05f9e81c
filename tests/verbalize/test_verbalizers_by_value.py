"""What is computed once per distinct value equals what is computed for every value, inside lists as well."""

from datetime import UTC, datetime

import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from verbalize.verbalizers.by_value import by_value, dates, without_repeats

FORM = "%Y%m%d, %A"
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)) | st.none()


def lists(values: list[list[object]], inner: pl.DataType | type[pl.DataType]) -> pl.DataFrame:
    return pl.DataFrame({"x": values}, schema={"x": pl.List(inner)})


@given(st.lists(st.lists(TIMES, max_size=5), max_size=6))
def test_dates_are_those_of_strftime(times: list[list[object]]) -> None:
    frame = lists(times, pl.Datetime("us", "UTC"))
    plain = frame.select(pl.col("x").list.eval(pl.element().dt.strftime(FORM)))
    assert frame.select(pl.col("x").list.eval(dates(pl.element(), FORM))).equals(plain)


def test_a_midnight_before_1970_belongs_to_the_day_it_opens() -> None:
    frame = pl.DataFrame({"x": [datetime(1969, 12, 31, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)]})
    assert frame.select(dates(pl.col("x"), "%Y-%m-%d")).to_series().to_list() == ["1969-12-31"] * 2


@given(st.lists(st.lists(st.sampled_from([0.5, 1.0, 3.25, None, float("nan")]) | st.floats(-9, 9), max_size=5)))
@example([[-0.0]])
@example([[-0.0, 0.0, None, float("nan")]])
def test_numbers_are_written_once_and_alike(numbers: list[list[object]]) -> None:
    frame = lists(numbers, pl.Float64)

    def rule(x: pl.Expr) -> pl.Expr:
        return x.round(2).cast(pl.String)

    one_zero = pl.when(pl.element() == 0.0).then(0.0).otherwise(pl.element())  # Polars may leave -0.0 + 0.0 as it is
    plain = frame.select(pl.col("x").list.eval(rule(one_zero)))
    assert frame.select(pl.col("x").list.eval(by_value(pl.element(), rule))).equals(plain)


@given(st.lists(st.none() | st.lists(st.sampled_from(["Drama", "Crime", "", "drama"]), max_size=5)))
def test_repeats_go_and_order_stays(words: list[list[object]]) -> None:
    frame = lists(words, pl.String)
    found = frame.select(without_repeats(pl.col("x"))).to_series().to_list()
    assert found == [None if some is None else list(dict.fromkeys(some)) for some in words]
