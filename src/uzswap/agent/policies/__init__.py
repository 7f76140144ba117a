"""Policies by name; see :mod:`uzswap.agent.policies.policy` for what one is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from uzswap.agent.policies import farmem, idle, refault, senpai, tmo, twostage
from uzswap.agent.policies.policy import Policy

__all__ = ["DEFAULT", "POLICIES"]

POLICIES: Final[Mapping[str, Policy]] = {
    "farmem": cast(Policy, farmem),
    "idle": cast(Policy, idle),
    "refault": cast(Policy, refault),
    "senpai": cast(Policy, senpai),
    "tmo": cast(Policy, tmo),
    "twostage": cast(Policy, twostage),
}
DEFAULT: Final = "twostage"
