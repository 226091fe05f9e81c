"""Estimators of what a run takes: times are compared by medians, whose intervals resample repeats; peaks of memory."""

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.seeding import rng
from recsys.significance import RESAMPLES
from verbalize.report.estimates import Estimate, of_arms


def ratio_of_times(table: pl.DataFrame, slow: str, fast: str, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """median(slow) / median(fast); percentile interval over repeats, resampled for each arm on its own; n is the
    smaller number of repeats.
    """
    times = [_seconds(table, arm) for arm in (slow, fast)]
    medians = [_bootstrap_medians(t, resamples, seed, arm) for t, arm in zip(times, (slow, fast), strict=True)]
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    n = min(map(len, times))
    return Estimate(float(np.median(times[0]) / np.median(times[1])), float(low), float(high), n, float(n))


def seconds(table: pl.DataFrame, arm: str, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Median of an arm's timings; percentile interval over repeats (a single repeat is its own interval: n says so)."""
    times = _seconds(table, arm)
    low, high = np.quantile(_bootstrap_medians(times, resamples, seed, arm), [0.025, 0.975])
    return Estimate(float(np.median(times)), float(low), float(high), len(times), float(len(times)))


def peak(table: pl.DataFrame, arm: str) -> Estimate:
    """Largest of an arm's peaks of memory, since a bound is to hold for every run; the interval spans all of them."""
    found = of_arms(table, [arm])["gigabytes"].to_numpy()
    if not (found > 0).all():
        raise InputError(f"peaks of {arm!r}: {found.tolist()}", "must be positive gigabytes", "measure again")
    return Estimate(float(found.max()), float(found.min()), float(found.max()), len(found), float(len(found)))


def _seconds(table: pl.DataFrame, arm: str) -> np.ndarray:
    times = of_arms(table, [arm])["seconds"].to_numpy()
    if not (times > 0).all():
        raise InputError(f"timings of {arm!r}: {times.tolist()}", "must be positive seconds", "measure again")
    return times


def _bootstrap_medians(times: np.ndarray, resamples: int, seed: int, arm: str) -> np.ndarray:
    """(resamples,) medians of `times` drawn with replacement."""
    picks = rng("bootstrap medians", seed, arm).integers(len(times), size=(resamples, len(times)))
    return np.median(times[picks], axis=1)
