"""Streams that a console may be given: a file, a terminal, one that is gone."""

from __future__ import annotations

import io

from cloudtrain.console import Console


class Terminal(io.StringIO):
    """A terminal that remembers what was written, and knows every letter."""

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "utf-8"

    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A terminal whose window was closed."""

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def write(self, _: str, /) -> int:
        raise OSError(5, "Input/output error")

    def isatty(self) -> bool:
        return self._terminal


class Spoken:
    """A console with what it said."""

    def __init__(
        self, *, json: bool = False, quiet: bool = False, terminal: bool = False, answer: str = ""
    ) -> None:
        kind = Terminal if terminal else io.StringIO
        self._out, self._err, typed = kind(), kind(), kind(answer)
        environ = {"TERM": "xterm"}
        self.console = Console(
            json=json, quiet=quiet, out=self._out, err=self._err, stdin=typed, environ=environ
        )

    @property
    def out(self) -> str:
        """Everything on stdout."""
        return self._out.getvalue()

    @property
    def err(self) -> str:
        """Everything on stderr."""
        return self._err.getvalue()
