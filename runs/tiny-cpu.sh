#!/bin/sh
# The whole story, one verb at a time, on scikit-learn's digits; well under a minute on two CPU cores.
# Usage: sh runs/tiny-cpu.sh [FOLDER]
set -eu
folder=${1:-work}
student="--student convnet-2:width=32 --epochs 100"
softlabel teach --data digits --arch convnet-2:width=32 --epochs 10 --views none --out "$folder/teacher"
softlabel distill --data digits --method rded:images=60 --ipc 2 --teacher "$folder/teacher" --out "$folder/rded"
softlabel label "$folder/rded" --teacher "$folder/teacher" --out "$folder/labels"
# shellcheck disable=SC2086
softlabel train "$folder/rded" --labels "$folder/labels" --loss soft_ce $student
# shellcheck disable=SC2086
softlabel evaluate "$folder/rded" --teacher "$folder/teacher" $student
