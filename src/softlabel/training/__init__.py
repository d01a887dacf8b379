"""One loop, protocols, optimizers, schedules and teachers."""

from softlabel.training._execution import (
    PRECISIONS,
    Execution,
    environment,
    is_out_of_memory,
    keep_freed_memory,
    peak_memory,
    resolve_execution,
)
from softlabel.training._history import Checkpoint, History
from softlabel.training._loop import Trainee, fit, fit_stack, measure_accuracy, view_loss
from softlabel.training._optim import OPTIMIZER_DEFAULTS, OPTIMIZERS, SCHEDULES, Optimizer, Schedule
from softlabel.training._pixels import Normaliser
from softlabel.training._protocol import BATCH_RULES, POLICIES, REGIMES, Checks, Protocol
from softlabel.training._stack import STACKS, resolve_stack
from softlabel.training._teacher import (
    EXPERT_PROTOCOL,
    TEACHER_PROTOCOL,
    TEACHER_PROTOCOLS,
    Teacher,
    check_teacher,
    kept_epochs,
    load_teacher,
    load_trajectory,
    mean_logits,
    renormalise,
    teacher_path,
    train_teacher,
    warn_if_weaker,
)

__all__ = [
    "BATCH_RULES",
    "EXPERT_PROTOCOL",
    "OPTIMIZERS",
    "OPTIMIZER_DEFAULTS",
    "POLICIES",
    "PRECISIONS",
    "REGIMES",
    "SCHEDULES",
    "STACKS",
    "TEACHER_PROTOCOL",
    "TEACHER_PROTOCOLS",
    "Checkpoint",
    "Checks",
    "Execution",
    "History",
    "Normaliser",
    "Optimizer",
    "Protocol",
    "Schedule",
    "Teacher",
    "Trainee",
    "check_teacher",
    "environment",
    "fit",
    "fit_stack",
    "is_out_of_memory",
    "keep_freed_memory",
    "kept_epochs",
    "load_teacher",
    "load_trajectory",
    "mean_logits",
    "measure_accuracy",
    "peak_memory",
    "renormalise",
    "resolve_execution",
    "resolve_stack",
    "teacher_path",
    "train_teacher",
    "view_loss",
    "warn_if_weaker",
]
