#!/bin/bash
# A run on a Slurm cluster, with one Ray node on each of its nodes:
#   sbatch deploy/slurm.sh geovlm-r1 run.name=first run.dir=/shared/runs data.path=/shared/data
# The folder of the checkout, with its .venv, and run.dir are on storage that all nodes share. Five minutes before the
# time limit the run saves a checkpoint, and the job is queued again; it goes on from there.
#SBATCH --job-name=geovlm-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

export PATH="$PWD/.venv/bin:$PATH"
# A token of this job: nobody else can use its Ray cluster.
RAY_AUTH_TOKEN="$(openssl rand -hex 32)"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 20000))
export RAY_ADDRESS="${nodes[0]}:$port"
options=(--block --num-cpus="$SLURM_CPUS_ON_NODE" --disable-usage-stats)

srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" --overlap \
    ray start --head --port="$port" --include-dashboard=false "${options[@]}" &
head=$!
until ray health-check --address "$RAY_ADDRESS" > /dev/null 2>&1; do
    kill -0 "$head" 2> /dev/null || exit 1
    sleep 1
done
others=$((${#nodes[@]} - 1))
if ((others > 0)); then
    srun --nodes="$others" --ntasks="$others" --exclude="${nodes[0]}" --overlap \
        ray start --address="$RAY_ADDRESS" "${options[@]}" &
fi

geovlm-ray train "$@" &
train=$!
trap 'kill -TERM "$train"' TERM
code=0
wait "$train" || code=$?
# A signal ends the first wait; the second one has the exit code of the run.
if kill -0 "$train" 2> /dev/null; then
    code=0
    wait "$train" || code=$?
fi
if ((code == 143)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
