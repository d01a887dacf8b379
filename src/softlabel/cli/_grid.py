"""softlabel grid: a study of many cells."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from softlabel.cli._options import Machine, Session
from softlabel.cli._output import print_plan
from softlabel.cli._run import show_study
from softlabel.core import ConfigError
from softlabel.evaluation import STACK_SIZE, GivenSet, Recipe, make_executor, plan_recipe, run_recipe, set_names
from softlabel.recipes import Changes, change, find_study
from softlabel.store import is_complete, load_distilled

SOME_FAILED = 3
"""The exit status of a grid some of whose cells failed."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A study of many cells: losses, optimizers, architectures, refinement, teachers, continual learning.

    Cells that are finished are found, one that fails does not stop the others, and a killed grid goes on when the same
    command is given again. The exit status is 3 when some failed.

    Example: softlabel grid optimizers --quick
    """

    study: tyro.conf.Positional[str]
    """Name of the study. See: softlabel ls studies"""
    quick: bool = False
    """The quick setting: minutes on two CPU cores, to see that everything works."""
    sets: tuple[Path, ...] | None = None
    """Folders of distilled sets to add (softlabel distill prints them), or of images in one sub-folder per class."""
    teacher_epochs: int | None = None
    """Epochs of the teacher, instead of the study's."""
    epochs: int | None = None
    """Student epochs, instead of the study's."""
    seed: int | None = None
    """First seed. Default: the study's."""
    seeds: int | None = None
    """Number of seeds. Default: the study's."""
    executor: str = "local"
    """local, or ray."""
    address: str | None = None
    """Address of a running Ray cluster. Default: a local one."""
    workers: int | None = None
    """Processes of a local Ray cluster. Default: one per CPU."""
    stack: str = "auto"
    """How students on the same views are run: auto, loop or vmap."""
    stack_size: int = STACK_SIZE
    """How many students on the same views are trained together at most."""
    retry: bool = False
    """Train cells again that failed before."""
    changes: Changes = field(default_factory=Changes)
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> int | None:
        if self.stack_size < 1:
            raise ConfigError(f"--stack-size must be 1 or more. Got {self.stack_size} instead.")
        executor = make_executor(self.executor, address=self.address, workers=self.workers)
        recipe = self._recipe()
        store, execution = self.machine.open_store(), self.machine.execution()
        if self.machine.dry_run:
            data = recipe.data.load(session.progress)
            print_plan(plan_recipe(recipe, data, store=store, execution=execution), execution, self.machine.json)
            return None
        study = run_recipe(
            recipe,
            store=store,
            execution=execution,
            command=session.command,
            executor=executor,
            stack=self.stack,
            stack_size=self.stack_size,
            retry=self.retry,
            tolerant=True,
            progress=session.progress,
        )
        return None if show_study(study, self.machine.json) else SOME_FAILED

    def _recipe(self) -> Recipe:
        recipe = change(find_study(self.study, self.quick, self.teacher_epochs), self.changes)
        recipe = recipe.with_seeds(self.seed, self.seeds).with_epochs(self.epochs)
        names = set_names({path: _method(path) for path in self.sets or ()})
        taken = {options.name for options in recipe.sets}
        given = (GivenSet(name=f"{n} from disk" if n in taken else n, path=path) for path, n in names.items())
        return replace(recipe, given=tuple(given))


def _method(path: Path) -> str:
    return load_distilled(path).method if is_complete(path) else path.resolve().name
