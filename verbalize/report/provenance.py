"""Where a number comes from: the machine it was measured on and the code that measured it."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

GIB = 1024**3
RESULTS = Path("experiments/results")
"""Where claims and their evidence lie, from the repository's root."""


def hardware() -> str:
    """One line: CPU model, usable cores, memory, accelerator.

    >>> " cores" in hardware() or " core" in hardware()
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [_cpu_model(), f"{cores} core{'s' if cores != 1 else ''}"]
    memory = _memory_bytes()
    if memory:
        parts.append(f"{memory / GIB:.0f} GiB memory")
    parts.append(_accelerator())
    return ", ".join(parts)


def revision(root: Path | str = ".") -> str:
    """The git commit of `root`, with `-dirty` when tracked files differ from it; "unknown" outside a repository.

    Changes under `RESULTS` do not count: recording a run writes there, and results do not decide what a run measures.
    """
    commit = _run(["git", "-C", str(root), "rev-parse", "HEAD"])
    if not commit:
        return "unknown"
    code = [":(top)", f":(top,exclude){RESULTS.as_posix()}"]
    changes = _run(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no", "--", *code])
    return f"{commit}-dirty" if changes else commit


def today() -> str:
    """The date in UTC, ISO 8601."""
    return datetime.now(UTC).date().isoformat()


def versions(packages: tuple[str, ...] = ("torch", "transformers", "trl", "peft", "polars", "numpy")) -> dict[str, str]:
    """Installed versions by name, read from package metadata (nothing is imported)."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown CPU"


def _memory_bytes() -> int | None:
    """Physical memory, or the container's limit where that is smaller."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
        return min(total, int(limit)) if limit.isdigit() else total
    except OSError:
        return total


def _accelerator() -> str:
    names = _run(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]).splitlines()
    if not names:
        return "no GPU"
    return f"{len(names)} × {names[0].strip()}" if len(names) > 1 else names[0].strip()


def _run(command: list[str]) -> str:
    """Standard output, or "" when the program is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
