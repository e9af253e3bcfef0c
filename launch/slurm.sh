#!/bin/bash
# sbatch launch/slurm.sh CONFIG            what it does: docs/slurm.md
#SBATCH --job-name=glfa
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300

set -uo pipefail
config=${1:?usage: sbatch launch/slurm.sh CONFIG}

# JAX gives the i-th process of a node the i-th GPU that it sees: every process must see all.
srun --gpu-bind=none --kill-on-bad-exit=0 .venv/bin/python -m train.cotrain \
  --config "$config" --set hardware.processes.found=auto
code=$?

# 75: asked to stop, saved. Goes back into the queue and on from there.
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
