"""Optional packages: imported where they are first needed; an absent one is an error that says how to get it."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["need"]


def need(module: str, extra: str, purpose: str) -> Any:
    """Return *module*, or say that *purpose* needs it.

    Raises
    ------
    ImportError
        If it is not installed. The text names the *extra* of entropic's that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"{purpose} needs {package}: pip install 'entropic[{extra}]'") from error
