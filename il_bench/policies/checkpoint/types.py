"""Whether the fields of a JSON object have the types that a dataclass of LeRobot's, or of others, gives them.

The classes themselves take nearly anything: draccus makes 1 of ``true``, a processor step keeps what it is
given until it fails in the middle of an episode.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import lru_cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from il_bench.errors import wrong_field

_ANY_CLASS = ConfigDict(arbitrary_types_allowed=True)


def wrong_type(cls: type, content: Mapping[str, Any]) -> str:
    """What is wrong with the first field that has another type than ``cls`` says; "" where none has.

    What LeRobot itself would have saved there is right, whatever the annotation says (act's
    ``replace_final_stride_with_dilation: int = False``), and so is what no annotation describes.
    """
    hints = _hints(cls)
    for field in fields(cls) if is_dataclass(cls) else ():
        if field.name not in content or field.name not in hints:
            continue
        value, default = content[field.name], _default(field)
        if type(value) is type(default) and (value == default or isinstance(value, bool)):
            continue
        checked = _adapter(hints[field.name])
        try:
            if checked is not None:
                checked.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            place, colon, rest = wrong_field(error, "").partition(":")
            is_below = place and not place.startswith(" = ")
            return f"{field.name}{'.' if is_below else ''}{place}{colon}{rest}"
    return ""


def _default(field: "Field[Any]") -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


@lru_cache
def _hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except Exception:  # names that only a type checker sees
        return {}


@lru_cache(maxsize=1000)
def _adapter(hint: Any) -> "TypeAdapter[Any] | None":
    """What checks a value against an annotation; None for one that pydantic does not understand."""
    for config in (_ANY_CLASS, None):  # None: dataclasses and models bring a configuration of their own
        try:
            return TypeAdapter(hint, config=config)
        except (PydanticUserError, NameError):
            continue
    return None
