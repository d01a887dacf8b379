"""Protocols, students, statistics, and whole comparisons."""

from softlabel.evaluation._budget import Candidate, label_candidates, pilot, pilot_epochs
from softlabel.evaluation._checks import check_inputs
from softlabel.evaluation._comparison import AXES, Arm, Comparison, SetPaths
from softlabel.evaluation._executors import EXECUTORS, make_executor
from softlabel.evaluation._generated import GeneratorOptions, TimedSet, keep_timed, timed_family
from softlabel.evaluation._given import keep_given, read_given, set_names
from softlabel.evaluation._plan import plan_recipe
from softlabel.evaluation._plan_labelers import plan_labeler, plan_one_labeler
from softlabel.evaluation._plan_parts import (
    PlanLine,
    plan_generator,
    plan_set,
    plan_students,
    plan_teacher,
    plan_timed,
)
from softlabel.evaluation._protocols import PROTOCOLS, find_protocol
from softlabel.evaluation._recipe import (
    DataOptions,
    GivenSet,
    Labeler,
    LearnedSet,
    Recipe,
    TeacherOptions,
    UpdatedSet,
)
from softlabel.evaluation._sets import SetOptions, keep_updated, make_set, set_path, set_teachers
from softlabel.evaluation._statistics import CONFIDENCE, Summary, paired_difference, summarise, verdict
from softlabel.evaluation._story import run_recipe, teacher_facts
from softlabel.evaluation._student_views import student_views
from softlabel.evaluation._students import Job, check_classes, full_data, train_student, train_students
from softlabel.evaluation._study import compare
from softlabel.evaluation._tuning import Tuned, Tuning, tune
from softlabel.evaluation._units import STACK_SIZE, Executor, LocalExecutor

__all__ = [
    "AXES",
    "CONFIDENCE",
    "EXECUTORS",
    "PROTOCOLS",
    "STACK_SIZE",
    "Arm",
    "Candidate",
    "Comparison",
    "DataOptions",
    "Executor",
    "GeneratorOptions",
    "GivenSet",
    "Job",
    "Labeler",
    "LearnedSet",
    "LocalExecutor",
    "PlanLine",
    "Recipe",
    "SetOptions",
    "SetPaths",
    "Summary",
    "TeacherOptions",
    "TimedSet",
    "Tuned",
    "Tuning",
    "UpdatedSet",
    "check_classes",
    "check_inputs",
    "compare",
    "find_protocol",
    "full_data",
    "keep_given",
    "keep_timed",
    "keep_updated",
    "label_candidates",
    "make_executor",
    "make_set",
    "paired_difference",
    "pilot",
    "pilot_epochs",
    "plan_generator",
    "plan_labeler",
    "plan_one_labeler",
    "plan_recipe",
    "plan_set",
    "plan_students",
    "plan_teacher",
    "plan_timed",
    "read_given",
    "run_recipe",
    "set_names",
    "set_path",
    "set_teachers",
    "student_views",
    "summarise",
    "teacher_facts",
    "timed_family",
    "train_student",
    "train_students",
    "tune",
    "verdict",
]
