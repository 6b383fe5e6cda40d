#!/usr/bin/env bash
# One run on a Slurm allocation: the first node is the head and drives the run, every node gives its GPUs.
#   sbatch examples/cluster/slurm.sh configs/gsm8k.yaml
# The same command goes on after the time limit: --requeue and the mirror bring the run back on whatever nodes come.
#SBATCH --job-name=gsi
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
config=${1:?usage: sbatch slurm.sh CONFIG.yaml}
scratch=${SLURM_TMPDIR:-/tmp/$USER/gsi}        # a disk of the node: SQLite does not live on a network file system
mirror=${GSI_MIRROR:-$HOME/gsi-mirror/$(basename "$config" .yaml)}  # on the shared file system
source "${GSI_VENV:-.venv}/bin/activate"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=$(srun --nodes=1 --ntasks=1 -w "${nodes[0]}" hostname --ip-address | awk '{print $1}'):6379
export RAY_ADDRESS=$address

srun --nodes=1 --ntasks=1 -w "${nodes[0]}" \
  ray start --head --node-ip-address="${address%:*}" --port="${address##*:}" --num-gpus="${SLURM_GPUS_ON_NODE:-8}" --block &
until ray health-check --address "$address" >/dev/null 2>&1; do sleep 2; done
for node in "${nodes[@]:1}"; do
  srun --nodes=1 --ntasks=1 -w "$node" ray start --address "$address" --num-gpus="${SLURM_GPUS_ON_NODE:-8}" --block &
done

srun --overlap --nodes=1 --ntasks=1 -w "${nodes[0]}" \
  gsi run "$config" "output_dir=$scratch/run" "mirror=$mirror" \
  "engine={kind: ray, of: vllm, replicas: $((SLURM_JOB_NUM_NODES * ${SLURM_GPUS_ON_NODE:-8})), address: '$address'}"
