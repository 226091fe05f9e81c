"""Strict configuration: YAML into frozen dataclasses, where an unknown key is an error that names the nearest one.

Every component keeps its own dataclass beside its code; this module knows only how to fill them. `key=value`
overrides use dotted paths and YAML values: `train.steps=10 'recommender.frame="Watched: "'`.
"""

import dataclasses
import datetime
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from recsys.errors import InputError
from recsys.later import left_out

T = TypeVar("T")


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping. Raises InputError for a missing file, a syntax error or anything but a mapping."""
    path = Path(path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(str(path), "no such file", "give the path of a recipe, e.g. experiments/demo.yaml") from error
    except yaml.YAMLError as error:
        raise InputError(str(path), f"not valid YAML ({error})", "mend the line named above") from error
    if not isinstance(value, dict):
        raise InputError(str(path), "a recipe is a mapping of keys to values", "start from experiments/demo.yaml")
    return value


def override(mapping: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Apply `a.b=value` assignments to a nested mapping; the value is parsed as YAML. Returns a new mapping.

    >>> override({"train": {"steps": 40}}, ["train.steps=2", "name=quick"])
    {'train': {'steps': 2}, 'name': 'quick'}
    """
    result = _copy(mapping)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator or not path:
            raise InputError(repr(assignment), "an override is written key=value", "for example train.steps=10")
        *parents, last = path.split(".")
        node = result
        for key in parents:
            child = node.setdefault(key, {})
            if not isinstance(child, dict):
                raise InputError(path, f"{key} holds a value, not a section", "override that key itself")
            node = child
        node[last] = yaml.safe_load(text)
    return result


def build(cls: type[T], value: Any, where: str = "") -> T:
    """Fill a dataclass from a mapping, nested dataclasses included.

    Raises InputError for unknown keys (naming the nearest), missing keys and values of another type.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{where or cls.__name__} = {value!r}", "is a section", "write its keys below it")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            raise InputError(f"{_join(where, str(key))}", "unknown key", _suggest(str(key), fields))
    filled = {key: _convert(hints[key], item, _join(where, key)) for key, item in value.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in filled:
            raise InputError(_join(where, name), "is required", "add it to the recipe")
    return cls(**filled)


def plain(config: Any) -> Any:
    """The inverse of `build`: dataclasses to mappings of plain values, ready for JSON or YAML. Settings that were added
    `later` are left out where they have their default, so that keys made before them hold.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        values = ((field, getattr(config, field.name)) for field in dataclasses.fields(config))
        return {field.name: plain(value) for field, value in values if not left_out(field, value)}
    if isinstance(config, Mapping):
        return {str(key): plain(item) for key, item in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(item) for item in config]
    return config


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _convert_union(arguments, value, where)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise InputError(f"{where} = {value!r}", f"must be one of {list(arguments)}", _suggest(str(value), arguments))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(arguments) == len(value):
            pairs = zip(arguments, value, strict=True)
            return tuple(_convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(pairs))
        raise InputError(f"{where} = {value!r}", f"needs {len(arguments)} values", "give that many")
    if origin in (dict, Mapping) or hint is dict:
        if isinstance(value, Mapping):
            kind = arguments[1] if arguments else Any
            return {str(key): _convert(kind, item, _join(where, str(key))) for key, item in value.items()}
    elif isinstance(hint, type):
        return _convert_scalar(hint, value, where)
    raise InputError(f"{where} = {value!r}", f"is not {_name(hint)}", f"give {_name(hint)}")


def _convert_scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 (no dot) as a string
        try:
            return float(value)
        except ValueError:
            pass
    if hint is str and isinstance(value, datetime.date):  # an unquoted YAML date or time
        return value.isoformat()
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    if hint is str and isinstance(value, bool):
        raise InputError(
            f"{where} = {value!r}", "YAML reads a bare on, off, yes or no as a truth value", "quote the word"
        )
    raise InputError(f"{where} = {value!r}", f"is not {_name(hint)}", f"give {_name(hint)}")


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    others = [option for option in options if option is not type(None)]
    if len(others) == 1:
        return _convert(others[0], value, where)
    for option in others:
        try:
            return _convert(option, value, where)
        except InputError:
            continue
    names = " or ".join(_name(option) for option in others)
    raise InputError(f"{where} = {value!r}", f"is not {names}", f"give {names}")


def _suggest(key: str, known: Iterable[Any]) -> str:
    names = [str(name) for name in known]
    nearest = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(sorted(names))}"


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)


def _copy(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(item) if isinstance(item, Mapping) else item for key, item in mapping.items()}
