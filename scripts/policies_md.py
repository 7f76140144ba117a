"""Writes the tables of settings in docs/policies.md, from the policies themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from uzswap.agent.policies import POLICIES
from uzswap.agent.settings import help_of
from uzswap.units import format_size

PAGE: Final = Path(__file__).parents[1] / "docs" / "policies.md"
BEGIN: Final = "<!-- settings: written by scripts/policies_md.py -->\n"
END: Final = "<!-- end of settings -->\n"


def shown(unit: str, value: object) -> str:
    """Return a default as a person would write it."""
    if unit == "bytes" and isinstance(value, int) and value:
        return format_size(value).replace(".0 ", " ")
    if unit == "seconds" and isinstance(value, float):
        for suffix, size in (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)):
            if value >= size and value % size == 0:
                return f"{value / size:g}{suffix}"
        return f"{value:g}s"
    if unit == "percent":
        return f"{value:g} %"
    if isinstance(value, bool | str):
        return f"`{value}`" if isinstance(value, str) else str(value).lower()
    return f"{value:g}"


def page() -> str:
    """Return the page as it ought to be."""
    rows = ["| setting | default | |\n|---|---|---|\n"]
    for name in sorted(POLICIES, key=lambda name: (name != "twostage", name)):
        for setting, unit, default, text in help_of(POLICIES[name].Settings):
            rows.append(f"| `{name}.{setting}` | {shown(unit, default)} | {text} |\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n{''.join(rows)}\n{END}{re.split(re.escape(END), rest)[-1]}"


if __name__ == "__main__":
    PAGE.write_text(page())
