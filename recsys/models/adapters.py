"""LoRA adapters: added reproducibly, saved whole with a card that says what they belong to, refused on another base."""

import json
import logging
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from recsys.errors import CorruptFileError, InputError
from recsys.models.settings import ENCODER_ATTENTION, ENCODER_MLP, AdapterCard, LoraSettings
from recsys.seeding import stable_hash
from recsys.storage import read_json, write_json, write_text

logger = logging.getLogger(__name__)
CARD = "card.json"


def lora_config(settings: LoraSettings, layers: int, encoder: bool = False) -> LoraConfig:
    """The PEFT form of our settings for a model of so many layers, a causal one or a sentence `encoder`. Raises
    InputError where more layers are asked for."""
    chosen = settings.last_layers
    if chosen is not None and chosen > layers:
        raise InputError(
            f"lora last_layers {chosen}", f"the model has {layers} layers", "lower it, or use null for all"
        )
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        bias="none",
        target_modules=list(ENCODER_ATTENTION + (ENCODER_MLP if settings.mlp else ()) if encoder else settings.targets),
        layers_to_transform=None if chosen is None else list(range(layers - chosen, layers)),
        task_type="FEATURE_EXTRACTION" if encoder else "CAUSAL_LM",
    )


def add_lora(model: Any, settings: LoraSettings, seed: int) -> PeftModel:
    """Wrap a causal model or a BERT-like encoder with a fresh adapter (B = 0: outputs unchanged). The same seed gives
    the same A; the caller's random state is left as it was. Raises InputError for a model with neither's projections.
    """
    last = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    encoder = "query" in last
    if not encoder and "q_proj" not in last:
        raise InputError(
            f"{type(model).__name__}", "has no projections named q_proj or query to adapt", "use another model"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_hash(seed, "lora") % 2**63)
        return get_peft_model(model, lora_config(settings, model.config.num_hidden_layers, encoder))


def save_adapter(model: PeftModel, folder: Path | str, card: AdapterCard) -> Path:
    """Write PEFT files, `card.json` and a README into `folder`, replacing it in one rename. Returns the folder."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.new-", dir=folder.parent) as work:
        made = Path(work) / "made"
        model.save_pretrained(str(made), save_embedding_layers=False)
        config = json.loads((made / "adapter_config.json").read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = card.base_name  # not this machine's cache path
        config["target_modules"] = sorted(config["target_modules"])  # a set in PEFT: equal adapters, equal bytes
        write_json(config, made / "adapter_config.json")
        write_json(asdict(card), made / CARD)
        write_text(_readme(card, config), made / "README.md")
        if folder.exists():
            os.replace(folder, Path(work) / "old")
        os.replace(made, folder)
    return folder


def load_adapter(model: Any, folder: Path | str, base_digest: str | None, trainable: bool = False) -> PeftModel:
    """Wrap `model` with a saved adapter. `base_digest` (LanguageModel.base_digest) is checked against the card; None
    skips it.

    Raises InputError when the folder holds no adapter or one of another base, CorruptFileError when it cannot be read.
    """
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise InputError(str(folder), "holds no adapter_config.json", "name a folder written by save_adapter")
    if not (folder / CARD).is_file():
        logger.warning("adapter %s has no card.json: its base is not checked", folder)
    elif base_digest is not None:
        card = AdapterCard(**read_json(folder / CARD))
        if card.base_hash != base_digest:
            raise InputError(
                f"adapter {folder.name} of base {card.base_name} ({card.base_hash[:12]})",
                f"does not belong to the loaded base ({base_digest[:12]})",
                f"load it on {card.base_name}",
            )
    try:
        loaded = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except Exception as error:
        raise CorruptFileError(str(folder), f"is not a loadable adapter ({error})", "train or copy it again") from error
    # PEFT asks the model hub about this name whenever adapter weights are read; it is ours, and nothing is looked up.
    loaded.peft_config["default"].base_model_name_or_path = ""
    return loaded


def _readme(card: AdapterCard, config: dict[str, Any]) -> str:
    note = f"\n{card.note}\n" if card.note else ""
    return f"""---
base_model: {card.base_name}
library_name: peft
license: {card.licence}
tags: [lora, recommendation, verbalization]
---
# LoRA adapter of {card.base_name}
{note}
| | |
|---|---|
| base | {card.base_name} |
| base hash | `{card.base_hash}` |
| rank, alpha | {config["r"]}, {config["lora_alpha"]} |
| target modules | {", ".join(config["target_modules"])} |
| data | {card.data} |
| split | {card.split} |
| licence | {card.licence} |
| code revision | `{card.revision}` |
| command | `{card.command}` |

Load it with `recsys.models.loading.load_language_model(base, adapter=folder)`, which refuses another base, or with
PEFT.
"""
