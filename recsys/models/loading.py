"""Names to language models: an asset of ours, a local folder, or a Hugging Face id."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.errors import AssetError, InputError
from recsys.models.assets import ASSETS, MANIFEST, fetch
from recsys.models.chat import install_chat_template
from recsys.models.quiet import no_progress_bars
from recsys.storage import file_hash, read_json

DTYPES = ("float32", "bfloat16", "float16")
_IDENTITY = ("*.safetensors", "*.bin", "config.json", "tokenizer.json", "tokenizer.model", "adapter_config.json")


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal model in evaluation mode and its tokenizer.

    `digest` identifies the weights, tokenizer and adapter as they were on disk: it keys score caches, so drop the
    caches of a model whose weights are trained in place. `base_digest` leaves the adapter out.
    """

    model: Any
    tokenizer: Any
    name: str
    digest: str
    base_digest: str


def resolve_model(name: str) -> Path:
    """The local folder of a checkpoint, fetching it when it is an asset or a Hugging Face id.

    Raises InputError for a name that can be none of the three, AssetError when the download fails.
    """
    if name in ASSETS:
        return fetch(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(
                str(folder),
                "holds no config.json, so it is not a model checkpoint",
                "name a folder written by save_pretrained",
            )
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        close = difflib.get_close_matches(name, ASSETS, n=1)
        raise InputError(
            f"model {name!r}",
            "is no asset, no existing folder and no Hugging Face id (owner/name)",
            f"did you mean {close[0]}?" if close else f"use one of {', '.join(sorted(ASSETS))}, or a folder",
        )
    return _hub_snapshot(name)


def load_language_model(
    name: str,
    dtype: str = "float32",
    adapter: str | Path | None = None,
    device: str | None = None,
    *,
    merge: bool = False,
) -> LanguageModel:
    """Load a causal language model with scaled-dot-product attention, frozen in evaluation mode, on `device` (default
    CPU).

    `adapter` is a folder written by `save_adapter`; one made for another base is refused. `merge` adds it to the base's
    weights: the same model up to rounding, two small products per matrix cheaper, and no longer trainable. Weights of
    half precision, where rounding would show, are left as they are.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if dtype not in DTYPES:
        raise InputError(
            f"dtype {dtype!r}", f"is none of {', '.join(DTYPES)}", "use float32 on a CPU, bfloat16 on a GPU"
        )
    folder = resolve_model(name)
    tokenizer = load_tokenizer(name)
    with no_progress_bars():
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
            )
        except (OSError, ValueError) as error:
            raise AssetError(
                name, f"is not a loadable causal language model ({error})", "check the folder, or fetch the model again"
            ) from error
    base = digest = weights_digest(folder)
    if adapter is not None:
        from recsys.models.adapters import load_adapter

        model = load_adapter(model, adapter, base)
        if merge and dtype == "float32":
            model = model.merge_and_unload()
        digest = hashlib.sha256(f"{base}+{weights_digest(Path(adapter))}".encode()).hexdigest()
    model.requires_grad_(False)
    return LanguageModel(model.to(device or "cpu").eval(), tokenizer, Path(name).name, digest, base)


def load_tokenizer(name: str) -> Any:
    """The tokenizer alone (for token counts), from the same names."""
    from transformers import AutoTokenizer

    folder = resolve_model(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise AssetError(name, f"has no loadable tokenizer ({error})", "save the tokenizer beside the model") from error
    # The asset's template is the one of this version of the code, not of the version that filled the cache.
    own = (folder / MANIFEST).is_file() and ASSETS.get(read_json(folder / MANIFEST).get("name", ""))
    return install_chat_template(tokenizer) if own and own.gguf else tokenizer


def weights_digest(folder: Path) -> str:
    """sha256 over names and sha256 of the files that decide a model's outputs. Recorded hashes of an asset are
    trusted.
    """
    recorded = read_json(folder / MANIFEST)["files"] if (folder / MANIFEST).is_file() else {}
    paths = sorted({path for pattern in _IDENTITY for path in folder.glob(pattern)})
    lines = [
        f"{path.name} {recorded[path.name]['sha256'] if path.name in recorded else file_hash(path)}" for path in paths
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _hub_snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        raise AssetError(
            f"model {name!r}",
            f"could not be obtained from the model hub ({type(error).__name__}: {error})",
            "check the id and the connection, or name a local folder",
        ) from error
