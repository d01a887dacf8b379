#!/bin/sh
# The studies behind docs/findings/gift.md on CPU cores, the finished ones first; the page says which are in.
# Finished work is found, so it can be stopped and started at will. The full settings of `softlabel grid` hold more.
# Usage: SOFTLABEL_DATA=FOLDER-WITH-cifar10-AND-tiny-imagenet-200 sh runs/gift.sh [STORE]
set -eu
store=${1:-softlabel-store}
softlabel grid optimizers --default-rates --optimizers adamw adam rmsprop sgd sgd:momentum=0.9 lion --store "$store"
softlabel grid losses --ipc 10 --methods random rded --store "$store"
softlabel grid refinement --methods random --store "$store"
softlabel grid many-classes --classes 50 --losses kl mse_ce cosine gift --store "$store"
softlabel grid optimizers --tune --optimizers adamw sgd:momentum=0.9 --losses kl kl_scaled gift --store "$store"
