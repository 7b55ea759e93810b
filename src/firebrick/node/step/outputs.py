"""The outputs of a step: they stay in the node's memory until the job ends, so there is a limit to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from firebrick.node.errors import StepError

MOST_BYTES: Final = 1 << 20
MOST_NAMES: Final = 1000


class StepOutputs(Mapping[str, str]):
    """Name to value, whether told on standard output or in the file. `most_bytes` bounds names and values together, as UTF-8."""

    def __init__(self, *, most_bytes: int = MOST_BYTES, most_names: int = MOST_NAMES) -> None:
        self._values: dict[str, str] = {}
        self._most_bytes = most_bytes
        self._most_names = most_names
        self._bytes = 0

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def set(self, name: str, value: str) -> None:
        """Keep `value`, instead of what had the name before. Raises StepError, changing nothing, where a limit is passed."""
        before = _bytes(name, self._values[name]) if name in self._values else 0
        size = self._bytes - before + _bytes(name, value)
        if size > self._most_bytes:
            raise StepError(f"The outputs of this step are more than {self._most_bytes >> 10} KiB.", hint=_HINT)
        if name not in self._values and len(self._values) == self._most_names:
            raise StepError(f"This step has more than {self._most_names} outputs.", hint=_HINT)
        self._values[name] = value
        self._bytes = size


_HINT: Final = "Hand larger things on in files."


def _bytes(name: str, value: str) -> int:
    return len(name.encode(errors="surrogatepass")) + len(value.encode(errors="surrogatepass"))
