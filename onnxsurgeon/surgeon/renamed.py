"""Former names of settings: they are still read, with a remark, and will be refused in the next version.

What is wanted (``objective``) and how it is sought (``search``) were one setting; other names were misleading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxsurgeon.errors import SettingsError
from onnxsurgeon.surgeon.fields import option_name
from onnxsurgeon.surgeon.own_settings import ALGORITHM_1, AUTO

RENAMED: Mapping[str, str] = {
    "memory": "step_back",  # of the search, not of the machine
    "result": "pick",
    "validation": "decide_by",
    "epsilon_relative": "singular_relative",  # beside adamw's --epsilon
    "epsilon_absolute": "singular_absolute",
}
PAPER = "paper"  # an objective, when that also chose the search


def renewed(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Settings by their present names, and a remark on each that had its former name.

    Raises:
        SettingsError: one is given by its old name and by its new one.
    """
    found, remarks = dict(values), []
    for old, new in RENAMED.items():
        if old in found:
            if new in found:
                raise SettingsError(
                    f"{option_name(old)}: is called {option_name(new)} now: give one of them", "exclusive"
                )
            found[new] = found.pop(old)
            remarks.append(f"--{option_name(old)} is called --{option_name(new)} now; {_UNTIL}")
    if found.get("objective") == PAPER:
        search = found.get("search", AUTO)
        if search not in (AUTO, ALGORITHM_1):
            raise SettingsError(
                f"objective: paper is --search {ALGORITHM_1} now, and --search {search} is given", "exclusive"
            )
        found |= {"objective": "accuracy", "search": ALGORITHM_1}
        remarks.append(f"--objective {PAPER} is called --search {ALGORITHM_1} now; {_UNTIL}")
    return found, remarks


_UNTIL = "the old name is refused in the next version"
