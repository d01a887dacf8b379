#!/bin/sh
# The studies behind docs/findings/gift.md, as they were run on two CPU cores (about two hours in all). Finished work is
# found, so it can be stopped and started at will. The full settings of `softlabel grid` add herding, IPC 1 and more.
# Usage: SOFTLABEL_DATA=FOLDER-WITH-cifar10 sh runs/gift.sh [STORE]
set -eu
store="--store ${1:-softlabel-store}"
# shellcheck disable=SC2086
{
    softlabel grid optimizers --default-rates --optimizers adamw adam rmsprop sgd sgd:momentum=0.9 lion $store
    softlabel grid losses --ipc 10 --methods random rded $store
    softlabel grid refinement --methods random $store
    softlabel grid optimizers --tune --optimizers adamw sgd --losses kl kl_scaled gift $store
}
