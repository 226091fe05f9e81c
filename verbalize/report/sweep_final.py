"""The best of a sweep against the default on test users, as the page of the sweep shows it.

Read from `final.json` (`verbalize.sweeps.final`), so that report and command line show the same numbers.
"""

from collections.abc import Mapping
from typing import Any


def final_part(found: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of final.json -> what the template reads: numbers formatted, rows in reading order."""
    test, validation = found["test"], found["validation"]
    seen = "no difference" if found["detectable"] is None else f"differences from {found['detectable']:.3f}"
    return {
        "metric": found["metric"],
        "trial": found["trial"],
        "rows": [
            (name, f"{validation[name]:.3f}", f"{test[name]:.3f}") for name in ("best", "default") if name in validation
        ],
        "chosen_with": f"{validation['chosen_with']:.3f}",
        "optimism": f"{found['optimism']:+.3f}",
        "difference": f"{test['difference']:+.3f} [{test['low']:+.3f}, {test['high']:+.3f}]".replace("-", "−"),
        "n": f"n {test['n']:,}, effective {test['n_effective']:,.0f}; {seen} could be seen (80% power)",
        "seeds": ", ".join(map(str, found["seeds"])),
        "look": found["look"],
        "claim": found["claim"],
        "tone": "good" if found["claim"]["status"] == "met" else "open",
        "command": found["command"],
    }
