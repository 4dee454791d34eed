"""
What is streamed as JSON: a pydantic model.
"""

from __future__ import annotations

from pydantic import BaseModel


class Tick(BaseModel):
    """
    A price, as a feed of prices would have it.
    """

    symbol: str
    price: float
    volume: int

    def __str__(self) -> str:
        """
        Return its JSON, for those who write text.
        """
        return self.model_dump_json()
