"""Writes the settings table of deploy/README.md from the settings themselves.

python -m tests.deploy.settings_table

`test_readme.py` fails when the table is not what this writes.
"""

from __future__ import annotations

import re
import typing
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from broker.settings import SERVE_NEEDS, Settings

README = Path(__file__).parents[2] / "deploy" / "README.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"


def models() -> dict[str, type[BaseModel]]:
    """Gives the settings that are tables of their own, by name."""
    found = {}
    for name, field in Settings.model_fields.items():
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found[name] = part
    return found


def default(name: str, value: object) -> str:
    """Gives what holds where nothing is set."""
    if name in SERVE_NEEDS or value is PydanticUndefined:
        return "required"
    if value in ("", None, ()):
        return "unset"
    if isinstance(value, tuple):
        return ", ".join(f"`{v}`" for v in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def rows(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Gives one row per setting."""
    lines = [f"| {'key' if prefix else 'variable'} | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        shown = f"{prefix}{name}" if prefix else f"BROKER_{name.upper()}"
        inner = "" if prefix or name not in models() else "see below"
        about = (field.description or inner).replace("|", "\\|")
        lines.append(f"| `{shown}` | {default('' if prefix else name, field.default)} | {about} |")
    return lines


def table() -> str:
    """Gives all tables: the variables, then each nested table once."""
    lines = rows(Settings)
    by_model: dict[type[BaseModel], list[str]] = {}
    for name, model in models().items():
        by_model.setdefault(model, []).append(name)
    for model, names in by_model.items():
        title = " and ".join(f"`{n}`" for n in names)
        lines += ["", f"{title}: {(model.__doc__ or '').strip()}", "", *rows(model, f"{names[0]}.")]
    return "\n".join(lines) + "\n"


def fill(text: str) -> str:
    """Gives the text with the table between its marks."""
    return re.sub(f"(?s){BEGIN}.*{END}", lambda _: BEGIN + "\n" + table() + "\n" + END, text)


if __name__ == "__main__":
    README.write_text(fill(README.read_text("utf-8")), "utf-8")
