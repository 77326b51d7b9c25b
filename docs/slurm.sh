#!/bin/bash
# One training on two machines with four GPUs each, started again by itself before its time is over.
#   sbatch docs/slurm.sh data=instruction data.train=rows.jsonl model.path=FOLDER
#SBATCH --job-name=train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4       # one process for each GPU: trainer.devices
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@300         # five minutes before the end every process hears of it, and last.ckpt is written
#SBATCH --requeue
#SBATCH --open-mode=append

# the run folder has a name of its own, so that the job that starts again goes on in it
srun --kill-on-bad-exit=1 .venv/bin/python train.py trainer=fsdp trainer.devices=4 trainer.num_nodes=2 \
    hydra.run.dir="outputs/slurm/$SLURM_JOB_ID" resume=auto "$@"
status=$?
# 138 is 128 + SIGUSR1: stopped at a safe point
if [ "$status" -eq 138 ]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
