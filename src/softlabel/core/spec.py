"""Component specs: a name with options in one string, as typed on a command line.

    kl                          the component with its defaults
    kl:temperature=4            one option changed
    convnet-3:width=64,norm=instance

Models, losses and distillation methods are all named this way.
"""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from softlabel.core.errors import ConfigError

Option = bool | int | float | str
Config = TypeVar("Config")


def parse_spec(spec: str) -> tuple[str, dict[str, Option]]:
    """Split `name:key=value,key=value` into the name and its options.

    Values read as Python literals where they can (`4`, `0.1`, `True`), as text where they cannot.

    Raises:
        ConfigError: when an option has no `=`, or is given twice.
    """
    name, _, tail = spec.partition(":")
    options: dict[str, Option] = {}
    for part in filter(None, (piece.strip() for piece in tail.split(","))):
        key, equals, text = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"Cannot read the option {part!r} in {spec!r}: write it as name:key=value,key=value.")
        if key.strip() in options:
            raise ConfigError(f"The option {key.strip()!r} is given twice in {spec!r}: keep one.")
        options[key.strip()] = _literal(text.strip())
    return name.strip(), options


def format_spec(name: str, options: Mapping[str, Option]) -> str:
    """The inverse of `parse_spec`, with the options in the order given."""
    tail = ",".join(f"{key}={_text(value)}" for key, value in options.items())
    return f"{name}:{tail}" if tail else name


def build_config(config_class: type[Config], options: Mapping[str, Option], owner: str) -> Config:
    """An instance of the frozen dataclass `config_class` with `options` set; the types are checked.

    Raises:
        ConfigError: for an option that does not exist (the message lists those that do) or whose type is wrong.
    """
    settable = [field for field in dataclasses.fields(config_class) if field.init]  # type: ignore[arg-type]
    fields = {field.name: field for field in settable}
    checked: dict[str, Any] = {}
    for key, value in options.items():
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise ConfigError(f"{owner[:1].upper()}{owner[1:]} has no option {key!r}. Its options are: {known}.")
        default = fields[key].default
        checked[key] = _as_type_of(default, value, f"The option {key!r} of {owner}")
    return config_class(**checked)


def _text(value: Option) -> str:
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _literal(text: str) -> Option:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, (bool, int, float, str)) else text


def _as_type_of(default: Any, value: Option, what: str) -> Option:
    expected = type(default)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is None or default is dataclasses.MISSING or type(value) is expected:
        return value
    raise ConfigError(f"{what} must be {expected.__name__}. Got {value!r} instead.")
