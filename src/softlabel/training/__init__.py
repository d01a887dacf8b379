"""One loop, protocols, optimizers, schedules and teachers."""

from softlabel.training._accuracy import measure_accuracy
from softlabel.training._batches import Batch, Batches, Drawn, DrawnViews, PhasedViews, PooledViews, ViewPlan, plan_of
from softlabel.training._compiling import compile_model
from softlabel.training._execution import (
    PRECISIONS,
    Execution,
    environment,
    is_out_of_memory,
    keep_freed_memory,
    peak_memory,
    resolve_execution,
)
from softlabel.training._history import Checkpoint, History, restore_training, training_state
from softlabel.training._loop import fit, fit_stack
from softlabel.training._member import Trainee, view_loss
from softlabel.training._optim import OPTIMIZER_DEFAULTS, OPTIMIZERS, SCHEDULES, Optimizer, Schedule
from softlabel.training._pixels import Normaliser
from softlabel.training._protocol import BATCH_RULES, POLICIES, REGIMES, Checks, HardPhase, Protocol, Tempering
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
    "Batch",
    "Batches",
    "Checkpoint",
    "Checks",
    "Drawn",
    "DrawnViews",
    "Execution",
    "HardPhase",
    "History",
    "Normaliser",
    "Optimizer",
    "PhasedViews",
    "PooledViews",
    "Protocol",
    "Schedule",
    "Teacher",
    "Tempering",
    "Trainee",
    "ViewPlan",
    "check_teacher",
    "compile_model",
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
    "plan_of",
    "renormalise",
    "resolve_execution",
    "resolve_stack",
    "restore_training",
    "teacher_path",
    "train_teacher",
    "training_state",
    "view_loss",
    "warn_if_weaker",
]
