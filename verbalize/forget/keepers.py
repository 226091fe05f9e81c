"""Other places that keep what came from users: each forgets by its own rules behind one small protocol."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from verbalize.experience.library import ExperienceLibrary


class Keeper(Protocol):
    """Something outside stores and runs that holds records of users; pass it to `forget` to have it asked as well."""

    @property
    def folder(self) -> Path:
        """Where its files lie: scanned afterwards."""
        ...

    def holds(self, users: Collection[str]) -> int:
        """How many records the users' data went into."""
        ...

    def forget(self, users: Collection[str]) -> int:
        """Remove those records from every file; how many there were."""
        ...


class LibraryKeeper:
    """An experience library. Forgetting there removes records, prototypes and older versions."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def holds(self, users: Collection[str]) -> int:
        """Records made from any of these users."""
        with self._open(read_only=True) as library:
            return sum(bool(set(users) & set(entry.users)) for entry in library.entries())

    def forget(self, users: Collection[str]) -> int:
        """Remove them, one user after another."""
        with self._open(read_only=False) as library:
            return sum(library.forget(user) for user in sorted(users))

    def _open(self, read_only: bool) -> "ExperienceLibrary":
        from verbalize.experience.library import ExperienceLibrary
        from verbalize.experience.settings import ExperienceConfig
        from verbalize.experience.snapshots import read_version

        made_with = read_version(self.folder).embedding
        return ExperienceLibrary.open(
            self.folder, replace(ExperienceConfig(), embedding=made_with), read_only=read_only
        )
