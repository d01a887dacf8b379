#!/bin/sh
# CIFAR-10 in 100 images, as committed under results/: about 45 minutes on two CPU cores.
# Usage: SOFTLABEL_DATA=FOLDER-WITH-cifar10 sh runs/cifar10.sh
set -eu
softlabel run cifar10-rded-ipc10
study=$(ls -td "${SOFTLABEL_STORE:-softlabel-store}"/studies/cifar10-rded-ipc10-* | head -n 1)
softlabel report "$study" --out "${OUT:-results/cifar10-rded-ipc10}"
