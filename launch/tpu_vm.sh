#!/usr/bin/env bash
# Runs rfn-jax on Cloud TPU VMs, v2 to v6e, from one host to a pod slice: asks for the slice, waits for it, installs, runs,
# follows the log, starts again after a preemption, and deletes the slice at the end.
#
#     launch/tpu_vm.sh --name=rfn --zone=us-central2-b --type=v4-32 --spot --wheel=dist/rfn_jax-0.1.0-py3-none-any.whl \
#         --setup='mkdir -p datasets && gcloud storage rsync --recursive gs://BUCKET/datasets datasets' \
#         --env=TFDS_DATA_DIR=datasets \
#         -- run --config=configs/imagenet_rfn.py --workdir=gs://BUCKET/rfn
#
#   --name=NAME      name of the queued resource and of its node
#   --zone=ZONE      zone
#   --type=TYPE      accelerator type, such as v4-32, v5litepod-16, v5p-8 or v6e-16
#   --project=ID     project; that of gcloud's configuration by default
#   --runtime=NAME   software version of the VMs; the usual one of the type by default
#   --spot           a slice that may be preempted, for less
#   --wheel=FILE     install this wheel (python -m build --wheel) ...
#   --git=URL        ... or what pip installs from here, such as git+https://HOST/NAME/rfn_jax@REF
#   --copy=FILE      copy this file into the working directory, such as a config; may be repeated
#   --setup=COMMAND  run this on all workers after the installation, such as one that mounts or copies the data
#   --env=NAME=VALUE variable for rfn-jax; may be repeated
#   --restarts=N     how often a preempted run is started again (100)
#   --poll=N         seconds between looks at the queued resource (30)
#   --keep           do not delete the queued resource at the end
#   --dry-run        print the commands of a run without trouble, and run none
#
# Configs that come with rfn_jax are in `configs/`. A queued resource of that name that is ACTIVE already is used. With status
# 75, the run is started again; if the queued resource is no longer ACTIVE then, it is deleted and created again. INT and TERM
# let the run save first. While this command waits, it must keep running (tmux helps). The exit status is that of rfn-jax, or
# 1 if gcloud fails.
#
# Google still fixes errors of the Cloud TPU API, which this uses, but develops it no further: new projects use GKE
# (launch/gke.sh). Many research grants still are for these VMs.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
source "$here/common.sh"

flag=([name]='' [zone]='' [type]='' [project]='' [runtime]='' [spot]=no [wheel]='' [git]='' [copy]='' [setup]='' [env]=''
  [restarts]=100 [poll]=30 [keep]=no)
lists='copy env'
parse "$@"
required name zone type
integer restarts 0
integer poll 1
[[ -z ${flag[wheel]} || -z ${flag[git]} ]] && [[ -n ${flag[wheel]}${flag[git]} ]] ||
  fail "one of --wheel=FILE and --git=URL is required, and not both"
mapfile -t files < <(values wheel && values copy)
for file in "${files[@]}"; do [[ -e $file ]] || fail "no such file: $file"; done
mapfile -t environment < <(values env)
for variable in "${environment[@]}"; do
  [[ $variable =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || fail "--env must be NAME=VALUE, got '$variable'"
done
case ${flag[type]} in
  v2-* | v3-* | v4-*) runtime=tpu-ubuntu2204-base ;;
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  *) fail "--type must be v2-N, v3-N, v4-N, v5litepod-N, v5p-N or v6e-N, got '${flag[type]}'" ;;
esac
runtime=${flag[runtime]:-$runtime}

# ---- gcloud

place=("--zone=${flag[zone]}" --quiet)
[[ -z ${flag[project]} ]] || place+=("--project=${flag[project]}")
scratch=$(mktemp -d)
child=

# In the background, because bash heeds a signal during `wait`, but not while a command runs in the foreground.
cloud() {
  if [[ ${flag[dry-run]} == yes ]]; then
    run gcloud "$@"
  else
    gcloud "$@" </dev/null &
    child=$!
    wait "$child"
  fi
}
pause() { [[ ${flag[dry-run]} == yes ]] || { sleep "${flag[poll]}" & child=$! && wait "$child"; }; }
on_workers() { cloud compute tpus tpu-vm ssh "${flag[name]}" "${place[@]}" "--worker=$1" "--command=$2"; } # WORKERS COMMAND

ours=no # whether there is something to delete at the end

# Leaves the state of the queued resource in `state`: ABSENT if there is none, UNKNOWN if gcloud fails.
look() {
  if cloud compute tpus queued-resources describe "${flag[name]}" "${place[@]}" '--format=value(state.state)' \
    >"$scratch/state" 2>"$scratch/error"; then
    state=$(<"$scratch/state")
    [[ ${flag[dry-run]} == no ]] || state=$([[ $ours == yes ]] && echo ACTIVE || echo ABSENT)
  elif grep -qi 'NOT_FOUND' "$scratch/error"; then
    state=ABSENT
  else
    state=UNKNOWN
    cat "$scratch/error" >&2
  fi
}

create() {
  local spot=()
  [[ ${flag[spot]} == no ]] || spot=(--spot)
  ours=yes # even if this is interrupted halfway
  cloud compute tpus queued-resources create "${flag[name]}" "${place[@]}" "--node-id=${flag[name]}" \
    "--accelerator-type=${flag[type]}" "--runtime-version=$runtime" "${spot[@]}" || { ours=no && return 1; }
}

delete() {
  cloud compute tpus queued-resources delete "${flag[name]}" "${place[@]}" --force || return
  ours=no
}

# Waits until the queued resource is ACTIVE; one that failed, or was preempted, is deleted and created again.
obtain() {
  local before=
  look
  while [[ $state != ACTIVE ]]; do
    [[ $state == "$before" ]] || say "queued resource ${flag[name]}: $state"
    before=$state
    case $state in
      FAILED | SUSPENDED) delete && create || return ;;
      ABSENT) create || return ;;
      UNKNOWN) [[ $ours == yes ]] || return ;; # later, gcloud may answer again
    esac
    pause
    look
  done
  ours=yes
}

# ---- on the workers, in ~/rfn_jax

source=${flag[git]}
# shellcheck disable=SC2016  # expanded by the shell of the worker
[[ -z ${flag[wheel]} ]] || source='file://$HOME/rfn_jax/'$(basename "${flag[wheel]}")

# The Python of the VMs is too old, so uv brings its own.
# shellcheck disable=SC2016
install_command='set -e; cd ~/rfn_jax
[ -x ~/.local/bin/uv ] || curl -LsSf https://astral.sh/uv/install.sh | sh
~/.local/bin/uv venv --quiet --allow-existing --python=3.12 venv
~/.local/bin/uv pip install --quiet --python=venv/bin/python --reinstall-package=rfn-jax "rfn_jax[tpu,gcs] @ '$source'"
ln -sfn "$(venv/bin/python -c "import rfn_jax.configs as c; print(c.__path__[0])")" configs'

# The run outlives the connection. Its shell ignores the TERM that it gets with the rest of its group, to note the status.
# shellcheck disable=SC2016
start_command='cd ~/rfn_jax; rm -f status
PATH=$PWD/venv/bin:$PATH nohup setsid bash -c '\''trap : TERM; "$@"; echo $? >status'\'' - '
start_command+="$(quoted env "${environment[@]}" rfn-jax "${arguments[@]}")"' >log 2>&1 </dev/null & echo $! >pid'

# shellcheck disable=SC2016
follow_command='tail -F --pid="$(cat ~/rfn_jax/pid)" ~/rfn_jax/log -n '

# After worker 0 has ended, the others have two minutes.
# shellcheck disable=SC2016
report_command='cd ~/rfn_jax; for i in $(seq 120); do [ -f status ] && break; sleep 1; done
echo "status $(cat status 2>/dev/null || echo running)"'

# shellcheck disable=SC2016
save_command='cd ~/rfn_jax; kill -TERM -- "-$(cat pid)"; for i in $(seq 120); do [ -f status ] && break; sleep 1; done'
# shellcheck disable=SC2016
kill_command='cd ~/rfn_jax; [ -f status ] || kill -KILL -- "-$(cat pid)"'

install() {
  on_workers all 'mkdir -p ~/rfn_jax' || return
  ((${#files[@]} == 0)) ||
    cloud compute tpus tpu-vm scp "${files[@]}" "${flag[name]}:rfn_jax/" "${place[@]}" --worker=all || return
  on_workers all "$install_command" || return
  [[ -z ${flag[setup]} ]] || on_workers all "cd ~/rfn_jax; ${flag[setup]}"
}

# Runs rfn-jax on all workers, and leaves its status in `code`: 255 if a worker cannot be reached.
attempt() {
  local lines=+1 statuses status
  code=255
  started=yes
  on_workers all "$start_command" || return 0
  while :; do
    on_workers 0 "$follow_command$lines" || true # the connection may break at any time
    lines=20
    on_workers all "$report_command" >"$scratch/report" || return 0
    [[ ${flag[dry-run]} == no ]] || echo 'status 0' >"$scratch/report"
    mapfile -t statuses < <(sed -n 's/^status //p' "$scratch/report")
    ((${#statuses[@]})) || return 0
    code=0
    for status in "${statuses[@]}"; do # 2 goes before all, and any failure before a preemption
      [[ $status == running || $status == 0 || $code == 2 ]] && continue
      [[ $status == 75 && $code != 0 ]] || code=$status
    done
    [[ " ${statuses[*]} " == *' running '* ]] || break
    ((code == 0)) || { on_workers all "$kill_command" || true; break; } # they wait for a process that has failed
  done
  started=no
}

# ---- the run

started=no

finish() {
  local status=$?
  trap '' INT TERM
  rm -rf "$scratch"
  if [[ $ours == yes ]]; then
    if [[ ${flag[keep]} == yes ]]; then
      say "kept, and charged for until it is deleted:" \
        "$(quoted gcloud compute tpus queued-resources delete "${flag[name]}" "${place[@]}" --force)"
    else
      delete || { say "NOT DELETED: delete the queued resource ${flag[name]} yourself" && status=1; }
    fi
  fi
  exit "$status"
}
trap finish EXIT

interrupt() {
  trap '' INT TERM
  [[ -z $child ]] || kill "$child" 2>/dev/null || true
  [[ $started == no ]] || { say "interrupted; the run is told to save" && on_workers all "$save_command" || true; }
  exit "$1"
}
trap 'interrupt 130' INT
trap 'interrupt 143' TERM

installed=no
for ((restart = 0; ; restart++)); do
  obtain || { say "there is no such queued resource, and it cannot be created" && exit 1; }
  code=255
  if [[ $installed == yes ]] || install; then
    installed=yes
    attempt
  fi
  [[ $code != 0 && $code != 2 ]] || exit "$code"
  ((restart < flag[restarts])) || exit "$((code == 255 ? 1 : code))"
  pause # a preemption shows in the state only after a while
  look
  if [[ $state != ACTIVE ]]; then
    say "status $code, and the queued resource is $state"
    installed=no
  elif [[ $code == 255 ]]; then
    [[ $installed == yes ]] || { say "rfn_jax cannot be installed on all workers" && exit 1; }
    say "a worker cannot be reached; starting again"
  elif [[ $code != 75 ]]; then
    exit "$code"
  fi
  say "restart $((restart + 1)) of ${flag[restarts]}"
done
