"""Strict YAML: what people write by hand is read without guessing.

Why: a doubled key, a misspelt field or a huge file must stop with its name, not change a limit.

Invariants:
1. Only plain data comes out (`yaml.SafeLoader`): no tags, no anchors that build objects.
2. A key that appears twice in one mapping is refused; so is a file above `FILE_BYTES_MAX`.
3. A field the schema does not know is refused, with what is allowed.

It keeps no defaults. Operator's page: `docs/settings.md`.
"""

from __future__ import annotations

from collections.abc import Hashable
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from hft_platform.errors import PlatformError, ReasonCode

FILE_BYTES_MAX = 1 << 20
"""A hand-written file is far smaller; alias bombs and wrong files stop here."""

_PROBLEMS_SHOWN = 5

Model = TypeVar("Model", bound=BaseModel)


class _StrictLoader(yaml.SafeLoader):
    """`SafeLoader` that refuses doubled keys and aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # Any: pyyaml passes a key node or a position
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]  # untyped in its stub
            raise yaml.constructor.ConstructorError(
                None, None, "aliases are not used in this project's files", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is not a plain value", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, *, code: int = ReasonCode.SETTINGS_INVALID) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Parameters
    ----------
    path : Path
        File to read.
    code : int, optional
        Reason code of the error, by default SETTINGS_INVALID.

    Returns
    -------
    dict
        Plain data.

    Raises
    ------
    PlatformError
        With `code`: missing, too large, not UTF-8, not YAML, a doubled key or no mapping.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise PlatformError(code, f"{path}: cannot be read: {error.strerror}") from error
    return parse_yaml(raw, name=str(path), code=code)


def parse_yaml(raw: bytes, *, name: str, code: int = ReasonCode.SETTINGS_INVALID) -> dict[str, Any]:
    """Parse YAML bytes whose top level is a mapping; `name` is what errors call the file."""
    if len(raw) > FILE_BYTES_MAX:
        raise PlatformError(code, f"{name}: is larger than {FILE_BYTES_MAX} bytes, the limit")
    try:
        text = raw.decode("utf-8")
        content = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  # a SafeLoader, made stricter
    except UnicodeDecodeError as error:
        raise PlatformError(code, f"{name}: byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise PlatformError(code, f"{name}: is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise PlatformError(code, f"{name}: {_yaml_problem(error)}") from error
    if not isinstance(content, dict):
        found = "empty" if content is None else f"a {type(content).__name__}"
        raise PlatformError(code, f"{name}: top level is {found}; a mapping is expected")
    return content


def validated(
    content: dict[str, Any],
    model: type[Model],
    *,
    name: str,
    code: int = ReasonCode.SETTINGS_INVALID,
) -> Model:
    """Check plain data against a pydantic model.

    Parameters
    ----------
    content : dict
        What `read_yaml` gave.
    model : type of BaseModel
        Schema with ``extra="forbid"``.
    name : str
        What errors call the file.
    code : int, optional
        Reason code of the error.

    Returns
    -------
    BaseModel
        An instance of `model`.

    Raises
    ------
    PlatformError
        With `code`; names file, field, value and what is allowed for the first few problems.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        rows = error.errors(include_url=False)
        shown = "; ".join(_problem(row) for row in rows[:_PROBLEMS_SHOWN])
        more = f"; and {len(rows) - _PROBLEMS_SHOWN} more" if len(rows) > _PROBLEMS_SHOWN else ""
        raise PlatformError(
            code,
            f"{name}: {shown}{more}",
            facts={"file": name, "fields": [".".join(map(str, row["loc"])) for row in rows]},
        ) from error


def load_yaml(path: Path, model: type[Model], *, code: int = ReasonCode.SETTINGS_INVALID) -> Model:
    """Read a YAML file and check it against a model; see `read_yaml` and `validated`."""
    return validated(read_yaml(path, code=code), model, name=str(path), code=code)


def load_or_packaged(file: str, model: type[Model], *, config_dir: Path | None = None) -> Model:
    """Read a file of the config folder, or the packaged one where it has none.

    Parameters
    ----------
    file : str
        Name, the same in both places. The file replaces the packaged one as a whole: nothing is
        merged, so nothing can be loosened by leaving it out.
    model : type of BaseModel
        Schema; its sequences are tuples.
    config_dir : Path, optional
        By default `config` in the working folder.

    Returns
    -------
    BaseModel
        An instance of `model`.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID; names the file that was read, the field, its value and what is allowed.
    """
    path = (config_dir if config_dir is not None else Path("config")) / file
    if path.exists():
        name, content = str(path), read_yaml(path)
    else:
        packaged = resources.files("hft_platform") / "defaults" / file
        name = f"packaged {file}"
        content = parse_yaml(packaged.read_bytes(), name=name)
    # What has one hash is one content: the order of a file's lines decides nothing.
    return validated(as_tuples(_by_key(content)), model, name=name)


def as_tuples(value: Any) -> Any:  # Any: plain YAML data; a strict model takes no list as a tuple
    """Plain data with a tuple for every list."""
    if isinstance(value, dict):
        return {key: as_tuples(item) for key, item in value.items()}
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


def _by_key(value: Any) -> Any:  # Any: plain YAML data
    if isinstance(value, dict):
        return {key: _by_key(value[key]) for key in sorted(value, key=str)}
    return [_by_key(item) for item in value] if isinstance(value, list) else value


def _problem(row: Any) -> str:  # Any: pydantic's ErrorDetails
    field = ".".join(str(part) for part in row["loc"]) or "(top level)"
    if row["type"] == "missing":
        return f"field {field} is missing"
    value = repr(row["input"])
    value = value if len(value) <= 80 else value[:77] + "..."
    if row["type"] == "extra_forbidden":
        return f"field {field} is not known (value {value})"
    message = row["msg"].removeprefix("Value error, ")
    return f"field {field} was {value}: {message[:1].lower()}{message[1:]}"


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)
