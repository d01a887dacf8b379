"""How long work reports itself, without knowing who listens.

The library calls a `Progress`; the command line passes one that draws a bar, or plain lines when its
output is not a terminal. Library users get silence unless they pass their own.
"""

from typing import Protocol


class Progress(Protocol):
    """A listener to long work. `start` and `finish` come in pairs and may nest."""

    def start(self, what: str, total: int) -> None:
        """Work named `what` begins; it has `total` steps."""
        ...

    def advance(self, steps: int = 1, note: str = "") -> None:
        """`steps` more are done; `note` is a short state, such as a loss."""
        ...

    def finish(self, summary: str = "") -> None:
        """The innermost work ended; `summary` is worth keeping on the screen."""
        ...


class Silent:
    """A Progress that says nothing."""

    def start(self, what: str, total: int) -> None:
        pass

    def advance(self, steps: int = 1, note: str = "") -> None:
        pass

    def finish(self, summary: str = "") -> None:
        pass


def tell_found(progress: Progress, what: str) -> None:
    """Tell that the work named `what` was done before."""
    progress.start(what, 1)
    progress.advance(note="found, not trained again")
    progress.finish()
