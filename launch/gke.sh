#!/usr/bin/env bash
# Runs rfn-jax on TPUs or GPUs of a GKE cluster that has JobSet and Kueue: through Cluster Toolkit, or with plain kubectl.
#
#     launch/gke.sh --build --image=us-docker.pkg.dev/PROJECT/REPOSITORY/rfn-jax --name=rfn --cluster=pod \
#         --location=us-central2-b --accelerator=v6e-16 --data=BUCKET \
#         -- run --config=configs/imagenet_rfn.py --config.data.data_dir=/data/datasets --workdir=gs://BUCKET/rfn
#     launch/gke.sh --kubectl --image=IMAGE --name=rfn --queue=research --accelerator=nvidia-h100-80gb --hosts=2 --chips=8 \
#         -- run --config=configs/imagenet_rfn.py --workdir=gs://BUCKET/rfn
#
#   --name=NAME          name of the job, at most 40 characters
#   --image=IMAGE        image, with its registry
#   --build              build the image with docker from launch/Dockerfile, and push it, first
#   --accelerator=TYPE   with Cluster Toolkit, its compute type, such as v6e-16 or a3-highgpu-8g; with --kubectl, the label of
#                        the nodes, such as tpu-v6e-slice (cloud.google.com/gke-tpu-accelerator) or nvidia-h100-80gb
#                        (cloud.google.com/gke-accelerator)
#   --topology=TOPOLOGY  topology of the TPU slice, such as 4x4; required for TPUs with --kubectl
#   --hosts=N            number of hosts (1); Cluster Toolkit finds it from the type and topology of a TPU
#   --chips=N            chips of each host (4); only with --kubectl
#   --queue=QUEUE        Kueue's LocalQueue; Cluster Toolkit finds it, and --kubectl requires it
#   --data=BUCKET        bucket with the data sets, mounted at /data for reading: use --config.data.data_dir=/data/FOLDER
#   --account=NAME       Kubernetes service account of the pods, which needs access to the buckets
#   --restarts=N         how often the job is started again (100)
#   --spot               only on spot nodes
#   --cluster=NAME, --location=PLACE, --project=ID    the cluster; only for Cluster Toolkit, the first two required
#   --gcluster=FLAG      another flag for `gcluster job submit`, such as --gcluster=--priority=high; may be repeated
#   --kubectl            fill in launch/jobset.yaml and apply it with kubectl, to the cluster of its current context
#   --dry-run            print the commands and run none
#
# The work directory must be on gs://. Follow the run with `gcluster job logs` or `kubectl logs`. With --kubectl, a run whose
# input is wrong (status 2) fails at once; Cluster Toolkit has no list of statuses after which a job is not to be restarted,
# so such a run fails again at each restart, within seconds.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
source "$here/common.sh"

flag=([name]='' [image]='' [build]=no [accelerator]='' [topology]='' [hosts]=1 [chips]=4 [queue]='' [data]='' [account]=''
  [restarts]=100 [spot]=no [cluster]='' [location]='' [project]='' [gcluster]='' [kubectl]=no)
lists='gcluster'
parse "$@"
required name image accelerator
integer restarts 0
for name in hosts chips; do integer "$name" 1; done
name=${flag[name]} hosts=${flag[hosts]}
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  fail "--name must be at most 40 small letters, digits and dashes, and begin with a letter, got '$name'"

# TPUs are called v6e-16, tpu7x-8, ... by Cluster Toolkit, and tpu-v6e-slice, ... by the labels of nodes.
device=gpu extra=cuda
[[ ! ${flag[accelerator]} =~ ^(v[0-9]|tpu|ct[0-9]) ]] || device=tpu extra=tpu

# JSON strings are YAML, too.
json() { # WORDS
  local word text=
  for word; do
    word=${word//\\/\\\\} word=${word//\"/\\\"} word=${word//$'\t'/\\t} word=${word//$'\n'/\\n}
    text+="\"$word\", "
  done
  printf '[%s]' "${text%, }"
}

coordinate() { # JOB PROCESS: the flags by which the processes on GPUs find each other
  [[ $device == tpu || $hosts == 1 ]] ||
    arguments+=("--coordinator=$name-$1-0-0.$name:8476" "--processes=$hosts" "--process=$2")
}

build() {
  run docker build "--file=$here/Dockerfile" "--build-arg=EXTRA=$extra" "--tag=${flag[image]}" "$here/.."
  run docker push "${flag[image]}"
}

with_gcluster() {
  local submit more command
  submit=(gcluster job submit "--name=$name" "--cluster=${flag[cluster]}" "--location=${flag[location]}"
    "--image=${flag[image]}" "--compute-type=${flag[accelerator]}" "--restarts=${flag[restarts]}" --grace-period=120s)
  [[ -z ${flag[project]} ]] || submit+=("--project=${flag[project]}")
  [[ -z ${flag[queue]} ]] || submit+=("--queue=${flag[queue]}")
  [[ -z ${flag[topology]} ]] || submit+=("--topology=${flag[topology]}")
  [[ $device == tpu ]] || submit+=("--num-nodes=$hosts")
  [[ ${flag[spot]} == no ]] || submit+=(--node-constraint=cloud.google.com/gke-spot=true)
  [[ -z ${flag[data]} ]] || submit+=("--mount=gs://${flag[data]}:/data:ro")
  [[ -z ${flag[account]} ]] || submit+=("--service-account=${flag[account]}")
  mapfile -t more < <(values gcluster)
  coordinate main-job @PROCESS@
  command="exec rfn-jax $(quoted "${arguments[@]}")" # bash -c runs it; `exec`, so that TERM reaches rfn-jax
  # shellcheck disable=SC2016  # expanded in the pod
  command=${command//@PROCESS@/'$JOB_COMPLETION_INDEX'}
  run "${submit[@]}" "${more[@]}" "--command=$command"
}

with_kubectl() {
  local manifest selector annotations='{}' volumes='[]' mounts='[]' value variable
  selector="\"cloud.google.com/gke-accelerator\": \"${flag[accelerator]}\""
  if [[ $device == tpu ]]; then
    selector="\"cloud.google.com/gke-tpu-accelerator\": \"${flag[accelerator]}\""
    selector+=", \"cloud.google.com/gke-tpu-topology\": \"${flag[topology]}\""
    annotations='{"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}'
  fi
  [[ ${flag[spot]} == no ]] || selector+=', "cloud.google.com/gke-spot": "true"'
  if [[ -n ${flag[data]} ]]; then
    volumes='"driver": "gcsfuse.csi.storage.gke.io", "readOnly": true, "volumeAttributes"'
    volumes="[{\"name\": \"data\", \"csi\": {$volumes: {\"bucketName\": \"${flag[data]}\"}}}]"
    mounts='[{"name": "data", "mountPath": "/data", "readOnly": true}]'
  fi
  local resource=google.com/tpu
  [[ $device == tpu ]] || resource=nvidia.com/gpu
  # shellcheck disable=SC2016  # expanded by Kubernetes
  coordinate hosts '$(PROCESS)'
  manifest=$(sed '/^#/d' "$here/jobset.yaml")
  for variable in NAME="$name" QUEUE="${flag[queue]}" IMAGE="${flag[image]}" HOSTS="$hosts" RESOURCE="$resource" \
    CHIPS="${flag[chips]}" SELECTOR="{$selector}" ANNOTATIONS="$annotations" RESTARTS="${flag[restarts]}" \
    VOLUMES="$volumes" MOUNTS="$mounts" ACCOUNT="${flag[account]:-default}" ARGUMENTS="$(json "${arguments[@]}")"; do
    value=${variable#*=}
    manifest=${manifest//"\${${variable%%=*}}"/"$value"}
  done
  if [[ ${flag[dry-run]} == yes ]]; then
    printf "kubectl apply --filename=- <<'EOF'\n%s\nEOF\n" "$manifest"
  else
    kubectl apply --filename=- <<<"$manifest"
  fi
}

if [[ ${flag[kubectl]} == yes ]]; then
  required queue
  [[ $device == gpu || -n ${flag[topology]} ]] || fail "--topology=TOPOLOGY is required for TPUs with --kubectl, such as 4x4"
else
  required cluster location
  [[ $device == gpu || $hosts == 1 ]] || fail "--hosts is for GPUs; for a TPU, Cluster Toolkit finds it from the type"
fi
[[ ${flag[build]} == no ]] || build
if [[ ${flag[kubectl]} == yes ]]; then with_kubectl; else with_gcluster; fi
