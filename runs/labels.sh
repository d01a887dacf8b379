#!/bin/sh
# The studies behind docs/findings/labels.md on CPU cores; the page says which are in.
# Finished work is found, so it can be stopped and started at will. Paper-size settings are at the end, for a GPU.
# Usage: SOFTLABEL_DATA=FOLDER-WITH-cifar10-AND-tiny-imagenet-200 sh runs/labels.sh [STORE]
set -eu
store=${1:-softlabel-store}
lab() { softlabel lab "$@" --compile --store "$store"; }

lab baseline --ipc 1 10 50
lab epochs --ipc 1 10 50
lab anatomy
lab scaling --stops 2 8 24
lab images
lab temperatures --stops 2 8 24
lab zero-shot
lab ensembles
lab learned

# Twenty classes of Tiny-ImageNet at 32 px: a tenth of the data, so more epochs of the expert.
tiny() { lab "$@" --data tiny-imagenet-200 --image-size 32x32 --classes 20 --expert-epochs 120; }

tiny baseline --ipc 1 10
tiny epochs --stops 5 15 30 60 120 --ipc 1 10
tiny anatomy
tiny scaling --stops 15 120 --ipc 1 2 3 5 8
tiny images
tiny temperatures --stops 5 30 120
tiny zero-shot
tiny ensembles
tiny learned --stops 5 15 30 60 120

# The paper's sizes, on a GPU: a ConvNet-3 of width 128, 3000 epochs of students, up to 1000 images per class.
# softlabel lab epochs --arch convnet-3:norm=instance --expert-epochs 164 --stops 2 4 8 16 32 64 128 164 \
#   --ipc 1 10 50 --epochs 3000 --protocol no-distillation --store "$store"
