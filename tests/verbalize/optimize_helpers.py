"""What the tests of the optimiser share: small histories, a tiny policy, a reward with a known optimum."""

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recsys.contracts import schema
from recsys.models.loading import LanguageModel, load_language_model
from recsys.models.settings import AdapterCard
from verbalize.optimize.rewards import Scored

CARD = AdapterCard(
    base_name="tiny",
    base_hash="0",
    data="made up",
    split="train",
    licence="Apache-2.0",
    command="pytest",
    revision="test",
)


def launched(*program: str) -> "subprocess.CompletedProcess[str]":
    """Two processes on the CPU by `accelerate launch`, whose flag for several of them on a machine speaks of GPUs."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    quiet = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return subprocess.run(
        [*launch, *quiet, *program],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )


def make_inputs(count: int, events: int = 4) -> pl.DataFrame:
    """`count` verbalizer inputs; example i has `events` + i % 2 events titled by their place."""
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    rows = []
    for index in range(count):
        history = [
            {
                "item_id": f"{index}-{place}",
                "title": f"day {place} {'night' if index % 2 else 'love'}",
                "year": 1990 + place,
                "genres": ["Drama"],
                "event_time": start + dt.timedelta(days=place),
                "event_type": "rating",
                "rating": 1.0 + (place + index) % 5,
                "duration_s": None,
                "completion": None,
            }
            for place in range(events + index % 2)
        ]
        rows.append({"example_id": f"e{index}", "cutoff_time": start + dt.timedelta(days=90), "history": history})
    columns = {
        "example_id": pl.String,
        "cutoff_time": pl.Datetime("us", "UTC"),
        "history": schema("examples")["history"],
    }
    return pl.DataFrame(rows, schema=columns)


def tiny_policy(folder: Path, device: str = "cpu") -> LanguageModel:
    """A fresh copy of the tiny model, without an adapter."""
    return load_language_model(str(folder), device=device)


def pays_for_even_events(example_ids: Sequence[str], texts: Sequence[str]) -> list[Scored]:
    """1 for exactly the events at even places, plain: minus a tenth for every place decided otherwise."""
    results = []
    for text in texts:
        parts = set(text.split("; ")) if text else set()
        wrong = sum(
            (any(part.startswith(f"day {place} ") and "(" not in part for part in parts)) != (place % 2 == 0)
            for place in range(4)
        ) + sum("(" in part for part in parts)
        results.append(Scored(1 - wrong / 10, {"hit": float(wrong == 0), "wrong": float(wrong)}))
    return results
