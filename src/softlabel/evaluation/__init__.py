"""Protocols, students, statistics, and whole comparisons."""

from softlabel.evaluation._comparison import Comparison, SetPaths, check_inputs
from softlabel.evaluation._plan import PlanLine, plan_recipe, plan_set, plan_students, plan_teacher
from softlabel.evaluation._protocols import PROTOCOLS, find_protocol
from softlabel.evaluation._recipe import (
    DataOptions,
    Recipe,
    SetOptions,
    TeacherOptions,
    make_set,
    run_recipe,
    set_path,
    teacher_facts,
)
from softlabel.evaluation._statistics import CONFIDENCE, Summary, paired_difference, summarise, verdict
from softlabel.evaluation._students import check_classes, full_data, train_student
from softlabel.evaluation._study import compare

__all__ = [
    "CONFIDENCE",
    "PROTOCOLS",
    "Comparison",
    "DataOptions",
    "PlanLine",
    "Recipe",
    "SetOptions",
    "SetPaths",
    "Summary",
    "TeacherOptions",
    "check_classes",
    "check_inputs",
    "compare",
    "find_protocol",
    "full_data",
    "make_set",
    "paired_difference",
    "plan_recipe",
    "plan_set",
    "plan_students",
    "plan_teacher",
    "run_recipe",
    "set_path",
    "summarise",
    "teacher_facts",
    "train_student",
    "verdict",
]
