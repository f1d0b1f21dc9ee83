"""The refusal of a value, on its way from the caster to the parameter that it was given for."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):
    """The column cannot take a value; the text says why, and `steps` lead to what is wrong in it, innermost first."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.steps: list[str] = []
