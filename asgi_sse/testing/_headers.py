"""
The headers of a response, found whatever their case.
"""

from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Headers"]


class Headers(Mapping[str, str]):
    """
    Header fields by name, in any case; ``get_all()`` for one that comes more than once.
    """

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._fields = [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw
        ]

    def __getitem__(self, name: str) -> str:
        for key, value in self._fields:
            if key == name.lower():
                return value
        raise KeyError(name)

    def get_all(self, name: str) -> list[str]:
        """
        Return every value of a field, in the order in which they were sent.
        """
        return [value for key, value in self._fields if key == name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._fields))

    def __len__(self) -> int:
        return len(dict(self._fields))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._fields!r})"
