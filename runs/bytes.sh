#!/bin/sh
# The studies behind docs/findings/bytes.md, on CPU cores. Finished work is found, so it can be stopped and started at will.
# Usage: SOFTLABEL_DATA=FOLDER-WITH-cifar10-AND-tiny-imagenet-200 sh runs/bytes.sh [STORE]
set -eu
store=${1:-softlabel-store}
lab() { softlabel lab "$@" --compile --store "$store"; }

# Accuracy over bytes.
lab bytes --ipc 10
lab bytes --ipc 10 50 --losses ce soft_ce --labels online online+fp16 replay replay+int4 replay+lowrank:rank=2 replay+distances \
  replay:epochs=30 replay:epochs=30+int4 replay:epochs=10+int4 fixed+fp16 fixed+int8
lab bytes --ipc 10 --losses ce soft_ce --data tiny-imagenet-200 --image-size 32x32 --classes 20 --expert-epochs 120

# HeLlO's labelers: EfficientNet-lite0 with its public weights, for 200 classes; and a small CLIP, trained on other images
# than those of its target, part by part.
lab hello --data tiny-imagenet-200 --image-size 32x32 --experts teacher --expert-epochs 20 \
  --labeler hello:backbone=efficientnet-lite0,size=64,epochs=3 --parts low-rank --losses ce gift
lab hello --data tiny-imagenet-200 --image-size 32x32 --experts teacher --expert-epochs 20 \
  --labeler hello:backbone=efficientnet-lite0,size=96,epochs=1,weight=1 --parts low-rank --losses ce gift
lab hello --data tiny-imagenet-200 --image-size 32x32 --experts teacher --expert-epochs 20 \
  --labeler hello:backbone=efficientnet-lite0,size=64,epochs=3,offset_epochs=30 --parts last offset --losses gift --epochs 150
lab hello --data tiny-imagenet-200 --image-size 32x32 --experts teacher --expert-epochs 20 \
  --labeler hello:backbone=efficientnet-lite0,size=64,epochs=3,set_epochs=20,offset_epochs=30,refit=true \
  --parts last offset refit --losses gift --epochs 150
lab hello --data tiny-imagenet-200 --image-size 32x32 --experts teacher --expert-epochs 20 \
  --labeler hello:backbone=efficientnet-lite0,size=64,rank=12,epochs=8,offset_epochs=30 --parts last offset --losses gift \
  --epochs 150
lab hello --experts teacher --expert-epochs 8 \
  --labeler hello:backbone=efficientnet-lite0,size=64,epochs=1,offset_epochs=30,refit=true --parts low-rank offset refit \
  --losses ce gift
softlabel clip --data tiny-imagenet-200 --image-size 32x32 --width 128 --depth 4 --heads 4 --epochs 8 --out "$store/clip-tiny"
lab hello --labeler "hello:backbone=clip:$store/clip-tiny,size=32,epochs=4"
softlabel clip --data cifar10 --width 128 --depth 4 --heads 4 --epochs 8 --out "$store/clip-cifar"
lab hello --data tiny-imagenet-200 --image-size 32x32 --experts teacher --expert-epochs 20 \
  --labeler "hello:backbone=clip:$store/clip-cifar,size=32,rank=32,epochs=3,text=false,offset_epochs=30" --parts offset \
  --losses gift --epochs 150
lab hello --data tiny-imagenet-200 --image-size 32x32 --experts teacher --expert-epochs 20 \
  --labeler "hello:backbone=clip:$store/clip-cifar,size=32,rank=36,epochs=12,text=false,offset_epochs=30,refit=true" \
  --parts offset refit --losses gift --epochs 150
