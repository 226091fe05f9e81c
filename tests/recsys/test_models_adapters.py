"""Loading by name and adapters: reproducible, saved whole with a card, refused on another base."""

import json
from pathlib import Path

import pytest
import torch

from recsys.errors import AssetError, InputError
from recsys.models.adapters import add_lora, load_adapter, save_adapter
from recsys.models.loading import LanguageModel, load_language_model, resolve_model, weights_digest
from recsys.models.settings import AdapterCard, LoraSettings

IDS = torch.tensor([[5, 6, 7, 8]])


def card(lm: LanguageModel) -> AdapterCard:
    return AdapterCard("tiny", lm.base_digest, "toy log", "train", "Apache-2.0", "verbalize train toy.yaml", "abc123")


@pytest.fixture
def lm(tiny_model_dir: Path) -> LanguageModel:
    return load_language_model(str(tiny_model_dir))


@pytest.fixture
def adapter(lm: LanguageModel, tmp_path: Path) -> Path:
    model = add_lora(lm.model, LoraSettings(rank=4), seed=3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    return save_adapter(model, tmp_path / "adapter", card(lm))


def test_a_model_loads_frozen_in_evaluation_mode(lm: LanguageModel) -> None:
    assert not lm.model.training
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert lm.model.config._attn_implementation == "sdpa"
    assert lm.model.dtype == torch.float32


def test_an_adapter_of_the_last_layers_needs_no_gradient_below_them(lm: LanguageModel) -> None:
    layers = lm.model.config.num_hidden_layers
    model = add_lora(lm.model, LoraSettings(rank=4, last_layers=1), seed=3)
    hidden = model(input_ids=IDS, output_hidden_states=True).hidden_states
    assert [state.requires_grad for state in hidden] == [False] * layers + [True]
    adapted = {name.split(".layers.")[1].split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert adapted == {str(layers - 1)}


def test_more_last_layers_than_there_are_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(InputError, match=f"has {lm.model.config.num_hidden_layers} layers"):
        add_lora(lm.model, LoraSettings(last_layers=99), seed=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2-135", "did you mean smollm2-135m"),
        ("nowhere", "no Hugging Face id"),
        ("/no/such/folder", "no existing folder"),
    ],
)
def test_names_that_are_nothing_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_model(name)


def test_folders_that_are_no_checkpoint_are_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        load_language_model(str(tmp_path))
    (tmp_path / "config.json").write_text((tiny_model_dir / "config.json").read_text())
    with pytest.raises(AssetError):
        load_language_model(str(tmp_path))
    with pytest.raises(InputError, match="dtype 'int8'"):
        load_language_model(str(tiny_model_dir), dtype="int8")


def test_a_fresh_adapter_changes_nothing_and_follows_its_seed(tiny_model_dir: Path) -> None:
    before = torch.get_rng_state()
    models = [
        add_lora(load_language_model(str(tiny_model_dir)).model, LoraSettings(rank=4), seed) for seed in (1, 1, 2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    down = [next(p for name, p in model.named_parameters() if "lora_A" in name) for model in models]
    assert torch.equal(down[0], down[1]) and not torch.equal(down[0], down[2])
    plain = load_language_model(str(tiny_model_dir)).model
    assert torch.allclose(models[0](IDS).logits, plain(IDS).logits, atol=1e-6)
    trained = {name.split(".")[-4] for name, p in models[0].named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_an_adapter_survives_the_disk_with_its_card(lm: LanguageModel, adapter: Path, tiny_model_dir: Path) -> None:
    loaded = load_language_model(str(tiny_model_dir), adapter=adapter)
    plain = load_language_model(str(tiny_model_dir))
    assert torch.allclose(lm.model(IDS).logits, loaded.model(IDS).logits, atol=1e-6)
    assert not torch.allclose(plain.model(IDS).logits, loaded.model(IDS).logits, atol=1e-3)
    assert loaded.digest != plain.digest and loaded.base_digest == plain.digest
    readme = (adapter / "README.md").read_text()
    assert all(part in readme for part in ("toy log", "train", "Apache-2.0", lm.base_digest, "abc123"))
    assert str(tiny_model_dir) not in "".join(path.read_text() for path in adapter.glob("*.[jm][sd]*"))
    trainable = load_adapter(plain.model, adapter, plain.base_digest, trainable=True)
    assert any(parameter.requires_grad for parameter in trainable.parameters())


def test_a_merged_adapter_is_the_same_model_without_its_products(adapter: Path, tiny_model_dir: Path) -> None:
    apart = load_language_model(str(tiny_model_dir), adapter=adapter)
    merged = load_language_model(str(tiny_model_dir), adapter=adapter, merge=True)
    assert torch.allclose(apart.model(IDS).logits, merged.model(IDS).logits, atol=1e-5)
    assert merged.digest == apart.digest and not any("lora" in name for name, _ in merged.model.named_parameters())
    half = load_language_model(str(tiny_model_dir), "bfloat16", adapter=adapter, merge=True)
    assert any("lora" in name for name, _ in half.model.named_parameters())


def test_saving_again_replaces_the_folder_whole(lm: LanguageModel, adapter: Path, tiny_model_dir: Path) -> None:
    (adapter / "stale").write_text("old")
    save_adapter(add_lora(load_language_model(str(tiny_model_dir)).model, LoraSettings(rank=2), 1), adapter, card(lm))
    assert not (adapter / "stale").exists()
    assert [path.name for path in adapter.parent.iterdir()] == ["adapter"]


def test_an_adapter_of_another_base_is_refused(adapter: Path, tiny_model_dir: Path) -> None:
    values = json.loads((adapter / "card.json").read_text())
    (adapter / "card.json").write_text(json.dumps({**values, "base_hash": "f" * 64}))
    with pytest.raises(InputError, match="does not belong to the loaded base"):
        load_language_model(str(tiny_model_dir), adapter=adapter)
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        load_language_model(str(tiny_model_dir), adapter=adapter.parent)


def test_the_digest_follows_the_weights_not_the_place(tiny_model_dir: Path, tmp_path: Path) -> None:
    for path in tiny_model_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert weights_digest(tmp_path) == weights_digest(tiny_model_dir)
    raw = bytearray((tmp_path / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(bytes(raw))
    assert weights_digest(tmp_path) != weights_digest(tiny_model_dir)


def test_settings_are_checked() -> None:
    assert LoraSettings(mlp=True).targets[-1] == "down_proj"
    with pytest.raises(InputError, match="rank 0"):
        LoraSettings(rank=0)
    with pytest.raises(InputError, match="dropout"):
        LoraSettings(dropout=1.0)
