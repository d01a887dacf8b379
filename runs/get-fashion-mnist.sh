#!/bin/sh
# Make sure that Fashion-MNIST is there: Debian's package where apt is at hand, a checked download otherwise.
# Usage: sh runs/get-fashion-mnist.sh PATH-OF-SOFTLABEL
set -eu
softlabel=$1
if "$softlabel" ls datasets --json | grep -q '"fashion-mnist": "found'; then
    exit 0
fi
if command -v apt-get >/dev/null 2>&1; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    if $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends dataset-fashion-mnist; then
        exit 0
    fi
    echo "apt could not install dataset-fashion-mnist; trying a download" >&2
fi
exec "$softlabel" fetch fashion-mnist
