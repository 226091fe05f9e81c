"""The register of looks at test users: each is opened under a claim id, and a second one shows."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.errors import CorruptFileError, InputError
from recsys.storage import read_json, write_json


class LooksRegister:
    """A JSON list on disk, one entry per look, only ever appended to. One process writes at a time."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def open(
        self,
        claim_id: str,
        *,
        digest: str,
        arms: Sequence[str],
        n: int,
        n_effective: float,
        mde: float | None,
        revision: str,
        when: datetime | None = None,
    ) -> int:
        """Record that test outcomes are about to be read for `claim_id`; return which look at that claim this is (1
        = first).

        `digest` identifies configuration and inputs. The same digest again is a resumption, not a look: nothing is
        added and the earlier number is returned. Raises InputError without a claim id or digest. `mde` is the
        detectable effect as printed (None: no effect was detectable).
        """
        if not claim_id.strip() or not digest.strip():
            raise InputError(
                f"claim id {claim_id!r}, digest {digest!r}",
                "test users are looked at only under a claim id, and the look names its configuration",
                "list the claim in the recipe before opening test",
            )
        entries = self.entries()
        mine = [entry for entry in entries if entry["claim_id"] == claim_id]
        for entry in mine:
            if entry["digest"] == digest:
                return int(entry["look"])
        moment = (when or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
        entries.append(
            {
                "claim_id": claim_id,
                "look": len(mine) + 1,
                "digest": digest,
                "arms": list(arms),
                "n": n,
                "n_effective": n_effective,
                "mde": mde,
                "revision": revision,
                "when": moment,
            }
        )
        write_json(entries, self.path)
        return len(mine) + 1

    def looks(self, claim_id: str) -> int:
        """Number of different looks taken for a claim."""
        return sum(entry["claim_id"] == claim_id for entry in self.entries())

    def entries(self) -> list[dict[str, Any]]:
        """All looks, oldest first. Raises CorruptFileError when the file is not a register."""
        if not self.path.exists():
            return []
        entries = read_json(self.path)
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and "claim_id" in entry for entry in entries
        ):
            raise CorruptFileError(
                str(self.path),
                "is not a register of looks",
                "restore it from version control; looks must not be forgotten",
            )
        return entries
