#!/bin/bash
# Training on SLURM, one process per GPU. Change the numbers, then, in the repository:
#
#     sbatch experiments/launch/slurm.sh --config=configs/cifar10.py:ve,ncsnpp --workdir=runs/ve
#
# The workdir must lie on a file system that all nodes share. Two minutes before the time limit, or when SLURM preempts the
# job, the processes get SIGTERM: all save at the same step and end with code 75, and the job is queued again and goes on
# from there. Set the two minutes so that a call of steps and a checkpoint fit into them.
#
#SBATCH --job-name=ornstein
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ornstein-%j.log

# GPUs per node, not per task: JAX gives the process of number SLURM_LOCALID on a node the GPU of that number, so that each
# process must see them all.
srun --kill-on-bad-exit=0 python -m experiments train --distributed --interrupted_code=75 "$@"
code=$?

if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID" || true # a preempted job may be queued already
    exit 0
fi
exit "$code"
