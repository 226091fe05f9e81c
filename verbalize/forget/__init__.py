"""Forgetting users: out of stores, stage artefacts and experience, with a check that nothing is left.

    report = forget(["u17"], stores=[Path("store")], runs=[Path("runs")], dry_run=True)

What cannot be undone is said: adapters that learned from the users' examples are named, not changed; so are exports
outside the folder of runs.
"""

from verbalize.forget.forget import Forgotten, forget
from verbalize.forget.keepers import Keeper, LibraryKeeper

__all__ = ["Forgotten", "Keeper", "LibraryKeeper", "forget"]
