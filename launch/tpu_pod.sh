#!/bin/bash
# launch/tpu_pod.sh NAME ZONE CONFIG       what it does: docs/tpu_pod.md
# Runs on your own machine; the TPU slice NAME exists already.
set -euo pipefail
name=${1:?usage: launch/tpu_pod.sh NAME ZONE CONFIG}
zone=${2:?usage: launch/tpu_pod.sh NAME ZONE CONFIG}
config=${3:?usage: launch/tpu_pod.sh NAME ZONE CONFIG}

on_all_workers() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

# Started again while it asks for it: 75 means that it was told to stop and has saved.
while true; do
  code=0
  on_all_workers "cd glfa_jax && .venv/bin/python -m train.cotrain --config '$config' \
    --set hardware.processes.found=auto" || code=$?
  [ "$code" -eq 75 ] || exit "$code"
done
