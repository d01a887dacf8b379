"""The command line: parsing and printing only."""

import _thread
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import tyro

from softlabel._version import __version__
from softlabel.cli._clip import MakeClip
from softlabel.cli._generate import Generate
from softlabel.cli._generator import MakeGenerator
from softlabel.cli._grid import STUDIES_OF_LABELS, Grid, Lab
from softlabel.cli._label import Label
from softlabel.cli._labeler import MakeLabeler
from softlabel.cli._lists import Fetch, Ls
from softlabel.cli._options import Session
from softlabel.cli._output import ConsoleProgress
from softlabel.cli._run import Evaluate, Report, Run
from softlabel.cli._stages import Distill, Teach, Train
from softlabel.core import SoftlabelError, UnknownNameError
from softlabel.training import is_out_of_memory, keep_freed_memory

__all__ = ["main"]

USER_ERROR = 2
INTERRUPTED = 130
READER_GONE = 141

Command = (
    Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Grid, tyro.conf.subcommand("grid")]
    | Annotated[Lab, tyro.conf.subcommand("lab")]
    | Annotated[Teach, tyro.conf.subcommand("teach")]
    | Annotated[Distill, tyro.conf.subcommand("distill")]
    | Annotated[Label, tyro.conf.subcommand("label")]
    | Annotated[MakeLabeler, tyro.conf.subcommand("labeler")]
    | Annotated[MakeClip, tyro.conf.subcommand("clip")]
    | Annotated[MakeGenerator, tyro.conf.subcommand("generator")]
    | Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Ls, tyro.conf.subcommand("ls")]
    | Annotated[Fetch, tyro.conf.subcommand("fetch")]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 when the user can mend it, 3 when parts failed, 130 when interrupted."""
    _print_what_can_be_printed()
    words = tuple(sys.argv[1:] if argv is None else argv)
    if words[:1] == ("lab",) and words[1:2] and not words[1].startswith("-") and words[1] not in STUDIES_OF_LABELS:
        print(f"error: {UnknownNameError('study of labels', words[1], STUDIES_OF_LABELS)}", file=sys.stderr)
        return USER_ERROR
    keep_freed_memory()
    progress = ConsoleProgress()
    try:
        if words == ("--version",):
            print(f"softlabel {__version__}", flush=True)
            return 0
        command = _parsed(words)
        with warnings.catch_warnings(), _terminated_as_interrupted(), _interruptions_not_lost():
            warnings.showwarning = _show_warning
            status = command.run(Session(words, progress))
            sys.stdout.flush()
    except SoftlabelError as error:
        progress.close()
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        progress.close()
        print("interrupted: finished work is kept; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _out_of_memory(progress, error)
    except BrokenPipeError:
        # Whoever read the output, such as head, has seen enough. Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    return status or 0


def _parsed(words: tuple[str, ...]) -> Any:
    """The command that the words name, with its options. Of a mistake, and of --help, it is printed and the end."""
    try:
        return tyro.cli(
            Command,
            prog="softlabel",
            description="Distil a labelled image dataset into a tiny training set whose labels do the work.",
            args=list(words) or ["--help"],
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )
    finally:
        sys.stdout.flush()  # of a help that nobody reads any more, it is told here


def _out_of_memory(progress: ConsoleProgress, error: BaseException) -> int:
    progress.close()
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    print(
        f"error: Out of memory ({reason}). Finished work is kept. Choose a smaller model or batch, smaller images, or "
        f"another --device.",
        file=sys.stderr,
    )
    return USER_ERROR


def _print_what_can_be_printed() -> None:
    """Where the terminal's encoding lacks a character, show a question mark instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A polite kill (SIGTERM) ends a command as Ctrl-C does: what is half done is put away."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _interruptions_not_lost() -> Iterator[None]:
    """Python drops what is raised while it destroys an object, a Ctrl-C too. Raise that one again a moment later."""
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            # Not at once: here, too, it would be dropped.
            threading.Timer(0.02, _thread.interrupt_main).start()
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)
