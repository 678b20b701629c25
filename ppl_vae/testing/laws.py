"""A law that is broken, and the list of those that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class ConformanceError(AssertionError):
    """A piece breaks a law of the library.

    Attributes:
        law: Its name, as the check functions return it.
    """

    def __init__(self, piece: str, law: str, got: object, expected: object, attempt: str) -> None:
        super().__init__(
            f"{piece} breaks the law {law!r}. Got {got}; expected {expected}. Try {attempt}."
        )
        self.law = law


class Laws:
    """The laws that a piece has kept so far; the first that it breaks is raised.

    Args:
        piece: What is checked, for the messages.
    """

    def __init__(self, piece: object) -> None:
        text = piece if isinstance(piece, str) else repr(piece)
        self.piece = text.split("\n")[0].removesuffix("(")
        self._kept: dict[str, None] = {}

    @property
    def kept(self) -> tuple[str, ...]:
        """Their names, in the order in which they were first checked."""
        return tuple(self._kept)

    def hold(self, law: str, holds: object, got: object, expected: object, attempt: str) -> None:
        """Note a law as kept if it holds.

        Raises:
            ConformanceError: If it does not.
        """
        if not bool(holds):
            raise ConformanceError(self.piece, law, _shown(got), _shown(expected), attempt)
        self.keep(law)

    def keep(self, law: str) -> None:
        """Note a law as kept."""
        self._kept[law] = None

    @contextmanager
    def run(self, law: str, attempt: str) -> Iterator[None]:
        """Take any error of the code inside as a breach of the law."""
        try:
            yield
        except ConformanceError:
            raise
        except Exception as error:
            text = next(iter(str(error).splitlines()), "")
            got = f"{type(error).__name__} ({text})"
            raise ConformanceError(self.piece, law, got, "no error", attempt) from error


def _shown(value: object) -> object:
    return f"{value.item():g}" if isinstance(value, Tensor) and value.numel() == 1 else value
