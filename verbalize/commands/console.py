"""Progress on the terminal."""

import sys
import time


class Console:
    """Prints progress: a line per stage, and one rewritten line with the remaining time for steps."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}
        self._last = 0.0

    def stage(self, name: str, state: str, detail: str = "") -> None:
        self._begun.pop(name, None)
        print(f"{name:<12} {state:<11} {detail}".rstrip(), flush=True)

    def step(self, name: str, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        begun, first = self._begun.setdefault(name, (now, done))
        # Rate since this process began, so that parts found on resuming do not flatter the estimate.
        left = (now - begun) / max(done - first, 1) * (total - done)
        live = sys.stdout.isatty()
        if live or now - self._last > 15 or done == total:
            self._last = now
            end = "\r" if live and done < total else "\n"
            remaining = f"{left / 60:.0f} min left" if done > first else ""
            print(
                f"{name:<12} {done}/{total}  {remaining}  {detail}"[:118].ljust(118 if live else 0), end=end, flush=True
            )
