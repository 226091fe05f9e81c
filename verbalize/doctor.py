"""What of this package will work on this machine, what will not, and what to do about it.

Checks look and change nothing. A `fail` breaks what everyone needs; a `warn` only what its line names.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

Status = Literal["ok", "warn", "fail"]
GB = 1e9
DEMO_MEMORY = 3 * GB  # two float32 models of 135M parameters, torch, and a training step
DEMO_DISK = 2 * GB  # model, data and stage artefacts
EXTRAS = {
    "postgres": (("psycopg",), "sweeps over several machines"),
    "agents": (("textworld", "scienceworld"), "text environments for agents"),
}
"""Extra of the package -> the modules that show it is there, and what it is for."""


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, what was found, and, unless all is well, what breaks and the remedy."""

    name: str
    status: Status
    found: str
    fix: str = ""


def diagnose(runs: Path, constraints: Path = Path("constraints.txt")) -> list[Check]:
    """All checks, in the order they are shown. `runs` is where runs would lie; `constraints` the pinned versions, where
    this is the repository."""
    checks: list[Callable[[], Iterator[Check]]] = [
        packages,
        lambda: pinned(constraints),
        torch_and_gpu,
        faiss_flavour,
        extras,
        assets,
        memory,
        lambda: disk(runs),
        programs,
    ]
    return [found for check in checks for found in check()]


def packages() -> Iterator[Check]:
    """Every required package is there, in a version this package was made for."""
    wrong = []
    for text in requires("verbalize") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found or 'missing'} (needs {requirement.specifier or 'any'})")
    fix = "pip install -c constraints.txt -e '.[cpu]'"
    yield Check("packages", "fail" if wrong else "ok", ", ".join(wrong) or "all as required", fix if wrong else "")


def pinned(constraints: Path) -> Iterator[Check]:
    """Installed versions against the pinned ones, which the recorded results were made with."""
    if not constraints.is_file():
        return
    other = []
    for line in constraints.read_text(encoding="utf-8").splitlines():
        name, separator, wanted = line.partition("#")[0].strip().partition("==")
        found = installed(name) if separator else None
        if found is not None and found.partition("+")[0] != wanted.partition("+")[0]:
            other.append(f"{name} {found} (pinned {wanted})")
    shown = ", ".join(other[:8]) + (f" and {len(other) - 8} more" if len(other) > 8 else "")
    fix = "pip install -c constraints.txt -e '.[cpu,dev]'; recorded numbers may otherwise not repeat"
    yield Check("constraints", "warn" if other else "ok", shown or "all as pinned", fix if other else "")


def torch_and_gpu() -> Iterator[Check]:
    """The accelerator that torch sees, or the driver that it does not."""
    try:
        import torch
    except Exception as error:  # a broken build raises anything
        yield Check("torch", "fail", f"cannot be imported ({error})", "install torch again, alone and first")
        return
    driver = shutil.which("nvidia-smi") is not None
    if torch.cuda.is_available():
        for place in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(place)
            free = torch.cuda.mem_get_info(place)[0] / GB
            bf16 = ", bfloat16" if torch.cuda.is_bf16_supported() else ""
            found = f"{facts.name}, {facts.total_memory / GB:.0f} GB, {free:.0f} GB free{bf16}"
            yield Check(f"gpu {place}", "ok", found)
        return
    yield Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if driver:
        fix = "install the CUDA build of torch, and set policy.device=cuda recommender.device=cuda"
        yield Check("gpu", "warn", "a driver, but torch cannot use it", fix)
    else:
        yield Check("gpu", "ok", "none: everything runs on the CPU; models above about 1B parameters will be slow")


def faiss_flavour() -> Iterator[Check]:
    """cpu and gpu bring the same folder: exactly one of them."""
    found = [name for name in ("faiss-cpu", "faiss-gpu") if installed(name)]
    if len(found) == 2:
        fix = "pip uninstall -y faiss-cpu faiss-gpu, then install one of the extras cpu and gpu"
        yield Check("faiss", "fail", "faiss-cpu and faiss-gpu, which overwrite each other's files", fix)
    elif not found:
        yield Check("faiss", "warn", "not installed: no vector search", "pip install 'verbalize[cpu]' (or gpu)")
    else:
        yield Check("faiss", "ok", f"{found[0]} {installed(found[0])}")


def extras() -> Iterator[Check]:
    """Optional parts."""
    for extra, (modules, purpose) in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        found = f"without {', '.join(missing)}: not all {purpose}" if missing else f"{', '.join(modules)}"
        yield Check(
            f"extra {extra}",
            "warn" if missing else "ok",
            found,
            f"pip install 'verbalize[{extra}]'" if missing else "",
        )


def assets() -> Iterator[Check]:
    """Models and data in the user's cache."""
    from recsys.models.assets import ASSETS, cache_dir

    for name in ASSETS:
        there = (cache_dir() / name).is_dir()
        found = str(cache_dir() / name) if there else "not fetched"
        yield Check(f"asset {name}", "ok" if there else "warn", found, "" if there else f"verbalize data fetch {name}")


def memory() -> Iterator[Check]:
    """Free memory, within the container's limit where there is one."""
    free = free_memory()
    if free is None:
        return
    enough = free >= DEMO_MEMORY
    fix = "" if enough else f"the demo needs about {DEMO_MEMORY / GB:.0f} GB: close programs or raise the limit"
    yield Check("memory", "ok" if enough else "warn", f"{free / GB:.1f} GB free", fix)


def disk(runs: Path) -> Iterator[Check]:
    """Free space where runs and the cache lie, and that both can be written."""
    from recsys.models.assets import cache_dir

    for name, folder, variable in (("runs", runs, "--runs FOLDER"), ("cache", cache_dir(), "VERBALIZE_CACHE")):
        place = folder.absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if not os.access(place, os.W_OK):
            yield Check(f"disk {name}", "fail", f"{place} cannot be written", f"choose another place by {variable}")
        elif free < DEMO_DISK:
            fix = f"the demo needs about {DEMO_DISK / GB:.0f} GB: free some, or choose another place by {variable}"
            yield Check(f"disk {name}", "warn", f"{free / GB:.1f} GB free at {place}", fix)
        else:
            yield Check(f"disk {name}", "ok", f"{free / GB:.1f} GB free at {place}")


def programs() -> Iterator[Check]:
    """Programs outside Python that some parts use."""
    for name, names, purpose in (
        ("java", ("java",), "ScienceWorld environments"),
        ("browser", ("chromium", "chromium-browser", "google-chrome"), "the tests of reports in a browser"),
    ):
        path = next((found for one in names if (found := shutil.which(one))), None)
        yield Check(
            name,
            "ok" if path else "warn",
            path or f"not installed: no {purpose}",
            "" if path else f"install {names[0]}",
        )


def installed(name: str) -> str | None:
    """The installed version, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def free_memory() -> int | None:
    """Bytes a new program could use; None where the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, int(limit) - used) if limit.isdigit() else free
