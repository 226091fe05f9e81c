"""Strict loading: what is accepted, and that every refusal names the key, the rule and the remedy."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from recsys.errors import InputError
from recsys.models.settings import LoraSettings
from verbalize.config import build, load_yaml, override, plain


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    seeds: tuple[int, ...] = (0,)
    shares: dict[str, float] = field(default_factory=dict)
    limit: int | None = None
    until: str | float | None = None


def test_nested_sections_are_filled_and_round_trip() -> None:
    value = {
        "name": "x",
        "inner": {"rate": "1e-4"},
        "seeds": [1, 2],
        "shares": {"train": 1},
        "limit": 3,
        "until": "2001-01-01",
    }
    config = build(Outer, value)
    assert config.inner.rate == 1e-4
    assert config.seeds == (1, 2)
    assert config.shares == {"train": 1.0}
    assert build(Outer, plain(config)) == config


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"name": "x", "inner": {"rat": 1.0}}, ["inner.rat", "unknown key", "did you mean rate?"]),
        ({"inner": {}}, ["name", "required"]),
        ({"name": "x", "inner": {"kind": "c"}}, ["inner.kind = 'c'", "'a', 'b'"]),
        ({"name": "x", "seeds": ["one"]}, ["seeds[0] = 'one'", "int"]),
        ({"name": "x", "limit": True}, ["limit = True", "int"]),
        ({"name": True}, ["name = True", "quote"]),
        ({"name": "x", "inner": 3}, ["inner = 3", "section"]),
    ],
)
def test_refusals_name_key_rule_and_remedy(value: dict, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        build(Outer, value)
    for word in words:
        assert word in str(caught.value)


def test_overrides_reach_nested_keys_without_touching_the_original() -> None:
    original = {"name": "x", "inner": {"rate": 1.0}}
    changed = override(original, ["inner.rate=2", "seeds=[3, 4]"])
    assert changed == {"name": "x", "inner": {"rate": 2}, "seeds": [3, 4]}
    assert original == {"name": "x", "inner": {"rate": 1.0}}


@pytest.mark.parametrize("assignment", ["steps", "=3", "name.deep=1"])
def test_malformed_overrides_are_refused(assignment: str) -> None:
    with pytest.raises(InputError):
        override({"name": "x"}, [assignment])


def test_files_that_are_no_recipe_are_refused(tmp_path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    for name in ("list.yaml", "broken.yaml", "absent.yaml"):
        with pytest.raises(InputError, match=name):
            load_yaml(tmp_path / name)


def test_a_later_setting_is_plain_only_where_it_was_set() -> None:
    assert "last_layers" not in plain(LoraSettings())
    chosen = LoraSettings(last_layers=2)
    assert plain(chosen)["last_layers"] == 2
    assert build(LoraSettings, plain(chosen)) == chosen
