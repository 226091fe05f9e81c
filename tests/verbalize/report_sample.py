"""A report with made-up films and made-up but plausible outcomes, as a run would give it; some titles are hostile."""

from datetime import UTC, datetime

import numpy as np
import polars as pl

from recsys.comparison import compare, summarise
from recsys.slices import by_target_position, summarise_slices
from verbalize.report.browser import example_views
from verbalize.report.claims import Claim, Estimator
from verbalize.report.data import ReportData, Shown, curves_from_metrics
from verbalize.verbalizers.sanitise import sanitise_titles

HOSTILE = [
    "<script>document.title='pwned'</script>",
    "</style><script>document.title='pwned'</script>",
    '"><img src=x onerror="document.title=1">',
    "javascript:alert(1)",
    "\u202egnp.elat\u202c Reversed",
    "Bell\x07 and \x1b[31mred\x1b[0m",
    "{{ 7 * 7 }} {% raw %}",
    "--><!-- claim:a.b -->",
    "]]>&lt;b&gt;",
]
FILMS = [
    "The Lighthouse Letters",
    "A Winter in Marrow",
    "Copper and Ash",
    "Seven Quiet Rooms",
    "The Cartographer's Son",
    "Night Ferry",
    "Paper Orchard",
    "Last Train to Ilmen",
    "The Glass Beekeeper",
    "Harbour Street",
    "Salt Road",
    "An Ordinary Comet",
    "The Second Violin",
    "Under the Tin Roof",
    "Blue Hour, Red Hour",
    "The Understudy's Dream",
    "Marigold Season",
    "Where the Heron Waits",
    "Fathoms",
    "Small Gods of Summer",
    *HOSTILE,
]
ARMS = {
    "titles": 0.20,
    "titles_metadata": 0.215,
    "concatenation": 0.13,
    "keep-all-metadata": 0.215,
    "actions": 0.245,
    "profile": 0.17,
}
GUSHING = "A devoted admirer of drama from the 1980s, who never misses westerns, and loved"
GENRES = ["Drama", "Comedy", "Mystery"]
TOKENS = {
    "titles": 148.0,
    "titles_metadata": 263.0,
    "concatenation": 611.0,
    "keep-all-metadata": 263.0,
    "actions": 171.0,
    "profile": 62.0,
}


def sample_decisions(users: int = 180, per_user: int = 7) -> pl.DataFrame:
    """Six arms on the same slates of ten; the learned one with three seeds; a logit that reads no text."""
    generator, rows = np.random.default_rng(11), []
    for user in range(users):
        taste = generator.normal(0, 0.35)
        for place in range(per_user):
            noise, target = generator.normal(0, 1, 10), int(generator.integers(10))
            for arm, skill in {**ARMS, "–": 0.225}.items():
                for seed in (0, 1, 2) if arm == "actions" else (0,):
                    scores = 0.85 * noise + 0.5 * generator.normal(0, 1, 10)
                    scores[target] += 7 * (skill - 0.1) + taste
                    rows.append(
                        (
                            f"e{user}-{place}",
                            f"u{user}",
                            0,
                            arm,
                            "smollm2-135m" if arm != "–" else "logit",
                            seed,
                            scores.round(3).tolist(),
                            target,
                            int(1 + (scores > scores[target]).sum()),
                        )
                    )
    schema = {
        "example_id": pl.String,
        "user_id": pl.String,
        "slate_index": pl.Int32,
        "verbalizer": pl.String,
        "recommender": pl.String,
        "seed": pl.Int64,
        "scores": pl.List(pl.Float64),
        "target_index": pl.Int32,
        "rank": pl.Int32,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def sample_report(users: int = 180) -> ReportData:
    """Every section filled."""
    decisions = sample_decisions(users)
    lm, quick = "smollm2-135m", {"resamples": 500}
    learned = ("actions", lm)
    pairs = [
        ("Learned actions − best template", ("titles_metadata", lm), 0.004),
        ("Learned actions − best constant policy", ("keep-all-metadata", lm), 0.004),
        ("Learned actions − conditional logit", ("–", "logit"), 0.21),
        ("Learned actions − concatenation", ("concatenation", lm), 0.001),
    ]
    shown = [Shown(label, compare(decisions, learned, other, **quick), 0.024, p) for label, other, p in pairs]
    shown.append(
        Shown(
            "Learned actions − concatenation",
            compare(decisions, learned, ("concatenation", lm), relative=True, **quick),
            None,
            None,
        )
    )
    shown.append(
        Shown(
            "Profile − titles", compare(decisions, ("profile", lm), ("titles", lm), **quick), None, None, primary=False
        )
    )
    slices = summarise_slices(
        decisions.filter(pl.col("verbalizer").is_in(["actions", "titles_metadata", "concatenation"])),
        [by_target_position(decisions)],
        resamples=200,
    )
    return ReportData(
        title="Learned verbalization on made-up films",
        subtitle="A sample: 180 users who do not exist, twenty films nobody made, one policy that never trained.",
        claims=_claims(),
        arms=summarise(decisions, **quick),
        tokens=TOKENS,
        learned=frozenset({"actions"}),
        comparisons=tuple(shown),
        curves=curves_from_metrics(_metrics()),
        slices=slices,
        examples=_examples(decisions),
        looks=_looks(),
        provenance={
            "recipe": "experiments/sample.yaml",
            "command": "verbalize run experiments/sample.yaml",
            "revision": "0f3c2d1",
            "hardware": "Example CPU, 2 cores, 8 GiB memory, no GPU",
            "slates": "matched, S = 10, sha256 9a41…",
            "data": "made up for this page; nobody's log",
        },
        notes=("In a rating log every target is a discovery: the contrast with re-watches cannot be measured here.",),
    )


def _claims() -> tuple[Claim, ...]:
    def claim(
        name: str,
        statement: str,
        unit: str,
        numbers: tuple[float, float, float] | None,
        target: float,
        n_effective: float = 1105,
        note: str = "",
        criterion: str = "interval",
    ) -> Claim:
        value, low, high = numbers or (None, None, None)
        return Claim(
            name,
            statement,
            unit,
            Estimator("paired_difference"),
            value,
            low,
            high,
            target,
            "higher",
            criterion,
            1260,
            n_effective,
            (0, 1, 2),
            note=note,
        )

    difference = "recall@1 difference"
    return (
        claim(
            "sample.actions_vs_best_template",
            "Learned actions against the best template with the same fields",
            difference,
            (0.031, 0.012, 0.05),
            0.0,
        ),
        claim(
            "sample.actions_vs_logit",
            "Learned actions against the conditional logit",
            difference,
            (0.012, -0.011, 0.036),
            0.0,
            740,
            "Headroom of the pool is 0.018; the recommender ranks by year as well as the logit does.",
        ),
        claim(
            "sample.actions_vs_concatenation",
            "Learned actions against the paper's concatenation, relative",
            "fraction",
            (0.62, 0.41, 0.9),
            0.93,
            note="The concatenation is stronger here than in the paper.",
            criterion="value",
        ),
        claim("sample.gpu", "Seconds on a GPU", "seconds", None, 60.0, note="no GPU was at hand"),
    )


def _metrics() -> pl.DataFrame:
    generator, rows = np.random.default_rng(5), []
    for seed in range(3):
        for step in range(0, 61, 2):
            rise = 1 - np.exp(-step / (14 + 4 * seed))
            values = {
                "reward/total": 0.22 + 0.2 * rise,
                "reward/margin": -0.3 + 0.5 * rise,
                "dead_groups": 0.35 - 0.2 * rise,
                "entropy": 1.3 - 0.6 * rise,
                "kl": 0.09 * rise,
                "reward/length": 0.8 + 0.1 * rise,
            }
            rows += [(step, f"seed {seed}/{name}", value + generator.normal(0, 0.02)) for name, value in values.items()]
    return pl.DataFrame(rows, schema={"step": pl.Int64, "name": pl.String, "value": pl.Float64}, orient="row")


def _examples(decisions: pl.DataFrame) -> tuple:
    generator = np.random.default_rng(2)
    titles = {f"i{n}": title for n, title in enumerate(FILMS)}
    few = decisions.filter(pl.col("recommender") != "logit").filter(
        pl.col("example_id").is_in([f"e{u}-0" for u in range(5)])
    )
    examples, texts = [], []
    for user, example in enumerate(few["example_id"].unique(maintain_order=True)):
        order = generator.permutation(len(FILMS))
        history = [
            {
                "title": titles[f"i{n}"],
                "year": 1970 + int(n),
                "genres": ["Drama"],
                "rating": 4.0,
                "event_time": datetime(1997, 1 + j, 3, tzinfo=UTC),
            }
            for j, n in enumerate(order[:9])
        ]
        examples.append({"example_id": example, "slate": [f"i{n}" for n in order[9:19]], "history": history})
        safe = dict(zip((e["title"] for e in history), sanitise_titles([e["title"] for e in history]), strict=True))
        plain = "; ".join(safe.values())
        written = {
            "titles": plain,
            "titles_metadata": "; ".join(f"{safe[e['title']]} ({e['year']}; Drama)" for e in history),
            "keep-all-metadata": plain,
            "concatenation": "\n".join(f"Title: {safe[e['title']]} | Year: {e['year']} | Rating: 4.0" for e in history),
            "profile": f"{GUSHING} {history[2]['title']}." if user % 2 else "",
            "actions": "; ".join(
                f"{safe[e['title']]} ({e['year']}; Drama)" if j % 2 else safe[e["title"]]
                for j, e in enumerate(history)
                if j % 3
            ),
        }
        texts += [
            {"example_id": example, "verbalizer": arm, "text": text, "tokens": len(text.split())}
            for arm, text in written.items()
        ]
    return example_views(pl.DataFrame(examples), titles, pl.DataFrame(texts), few)


def _looks() -> tuple:
    first = {
        "claim_id": "sample.actions_vs_best_template",
        "look": 1,
        "digest": "a",
        "arms": ["actions", "titles_metadata"],
        "n": 1260,
        "n_effective": 1105.0,
        "mde": 0.024,
        "revision": "0f3c2d1",
        "when": "2026-01-05T10:00:00+00:00",
    }
    return (first, first | {"look": 2, "digest": "b", "when": "2026-01-06T09:30:00+00:00"})
