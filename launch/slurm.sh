#!/usr/bin/env bash
# Submits a run of rfn-jax to Slurm, on one or many nodes; Slurm requeues it when it is preempted or out of time.
#
#     launch/slurm.sh --nodes=2 --gpus-per-node=8 -- run --config=configs/imagenet_rfn.py --workdir=/shared/runs/rfn
#     launch/slurm.sh --array=0-2 --gpus-per-node=1 -- train --config=configs/cifar10.py --workdir=/shared/runs/cifar10 \
#         --only=surrogates/resnet18-rfn/seed{}
#
#   --nodes=N           number of nodes (1)
#   --gpus-per-node=N   GPUs of each node; none are asked for by default
#   --per-gpu           one process for each GPU instead of one for each node
#   --cpus=N            CPU cores of each process, for decoding images; the cluster's default by default
#   --time=LIMIT        time limit, in the form of sbatch; the cluster's default by default
#   --grace=N           seconds before the time limit at which the processes are told to save and end (300)
#   --requeues=N        how often the job is requeued after it was preempted (100)
#   --array=INDICES     one independent job for each index, such as 0-3; in the arguments, {} stands for the index
#   --name=NAME         name of the job (rfn-jax)
#   --sbatch=FLAG       another flag for sbatch, such as --sbatch=--partition=gpu; may be repeated
#   --dry-run           print the command and run none
#
# The work directory must be on a file system that all nodes share, and rfn-jax on the PATH of the shell that submits. The
# jobs of an array train different networks of one work directory; `rfn-jax run` with the same config then uses them all.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
source "$here/common.sh"

flag=([nodes]=1 [gpus-per-node]='' [per-gpu]=no [cpus]='' [time]='' [grace]=300 [requeues]=100 [array]=''
  [name]=rfn-jax [sbatch]='')
lists='sbatch'
parse "$@"
for name in nodes grace; do integer "$name" 1; done
integer requeues 0
for name in gpus-per-node cpus; do [[ -z ${flag[$name]} ]] || integer "$name" 1; done
[[ ${flag[per-gpu]} == no || -n ${flag[gpus-per-node]} ]] || fail "--per-gpu needs --gpus-per-node=N"
if [[ -n ${flag[array]} ]]; then
  [[ ${arguments[*]} == *'{}'* ]] || fail "--array needs {} in the arguments of rfn-jax, or all jobs would do the same"
elif [[ ${arguments[*]} == *'{}'* ]]; then
  fail "{} in the arguments of rfn-jax needs --array=INDICES"
fi

tasks=1
[[ ${flag[per-gpu]} == no ]] || tasks=${flag[gpus-per-node]}
submit=(sbatch "--job-name=${flag[name]}" "--nodes=${flag[nodes]}" "--ntasks-per-node=$tasks" "--signal=TERM@${flag[grace]}")
[[ -z ${flag[gpus-per-node]} ]] || submit+=("--gpus-per-node=${flag[gpus-per-node]}")
[[ -z ${flag[cpus]} ]] || submit+=("--cpus-per-task=${flag[cpus]}")
[[ -z ${flag[time]} ]] || submit+=("--time=${flag[time]}")
[[ -z ${flag[array]} ]] || submit+=("--array=${flag[array]}")
mapfile -t more < <(values sbatch)
run "${submit[@]}" "${more[@]}" "$here/slurm.sbatch" "${flag[requeues]}" "${arguments[@]}"
