#!/usr/bin/env bash
# Runs rfn-jax in several processes on the CPU of this machine, as on as many hosts: a rehearsal before it costs anything.
#
#     launch/local_processes.sh [flags] -- run --config=configs/digits.py --workdir=runs/digits
#
#   --processes=N   number of processes (2)
#   --devices=N     virtual CPU devices of each process (1)
#   --port=N        port of process 0, where the others find it; a free one by default
#   --logs=DIR      folder for the output of the processes other than 0; a new one in TMPDIR by default
#   --restarts=N    how often all processes are started again after a preemption or a crash, but not after status 2 (0)
#   --grace=N       seconds that the others are given to end after one failed (30)
#   --dry-run       print the commands and run none
#
# The output of process 0 is the output of this command. INT and TERM are passed on to all processes. When one fails, the
# others are stopped. The exit status is 0; or that of the first process that failed; or 75 if all that failed were preempted.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
source "$here/common.sh"

flag=([processes]=2 [devices]=1 [port]='' [logs]='' [restarts]=0 [grace]=30)
parse "$@"
for name in processes devices; do integer "$name" 1; done
for name in restarts grace; do integer "$name" 0; done
[[ -z ${flag[port]} ]] || integer port 1
[[ -z ${flag[port]} || ${flag[port]} -le 65535 ]] || fail "--port must be at most 65535, got '${flag[port]}'"
[[ ${flag[dry-run]:-} == yes ]] || command -v rfn-jax >/dev/null || fail 'rfn-jax is not on the PATH'
count=${flag[processes]}

# A port below the range that systems give out by themselves, on which nothing listens.
free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)) && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# The command of process I with a port, in the array `command`.
command_of() {
  command=(env JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=${flag[devices]}"
    rfn-jax "${arguments[@]}" "--coordinator=127.0.0.1:$2" "--processes=$count" "--process=$1")
}

declare -A running=() # process ids by process
interrupted=no

send() { for pid in "${running[@]}"; do kill "-$1" -- "-$pid" 2>/dev/null || true; done; }

pass_on() {
  interrupted=yes
  send "$1"
}
trap 'pass_on INT' INT
trap 'pass_on TERM' TERM

start() {
  local port=${flag[port]:-$(free_port)} i
  for ((i = 0; i < count; i++)); do
    command_of "$i" "$port"
    set -m # a process group for each: a signal reaches all that a process started, and Ctrl-C only this script
    if ((i == 0)); then
      "${command[@]}" </dev/null &
    else
      "${command[@]}" </dev/null >>"$logs/process_$i.log" 2>&1 &
    fi
    running[$i]=$!
    set +m
  done
}

# Waits for all processes, and leaves the status of the attempt in `code`.
attend() {
  local i status deadline='' stopping=no
  code=0
  while ((${#running[@]})); do
    for i in "${!running[@]}"; do
      kill -0 "${running[$i]}" 2>/dev/null && continue
      status=0
      wait "${running[$i]}" || status=$?
      unset "running[$i]"
      ((status != 0)) && [[ $stopping == no ]] || continue
      say "process $i ended with status $status$( ((i == 0)) || echo "; its output is in $logs/process_$i.log")"
      ((code != 0 && code != 75)) || code=$status
      [[ -n $deadline ]] || deadline=$((SECONDS + flag[grace]))
      # After a preemption the others are saving, too, and are given time; after a failure they wait for it in vain.
      ((status == 75)) || { stopping=yes && send TERM; }
    done
    if [[ -n $deadline ]] && ((SECONDS >= deadline)); then
      if [[ $stopping == no ]]; then send TERM; else send KILL; fi
      stopping=yes deadline=$((SECONDS + flag[grace]))
    fi
    sleep 0.1
  done
}

if [[ ${flag[dry-run]} == yes ]]; then
  port=${flag[port]:-$(free_port)}
  for ((i = 0; i < count; i++)); do
    command_of "$i" "$port"
    run "${command[@]}"
  done
  exit 0
fi

logs=${flag[logs]:-$(mktemp -d "${TMPDIR:-/tmp}/rfn_jax_processes.XXXXXX")}
mkdir -p "$logs"
((count == 1)) || say "the output of the other processes is in $logs/process_N.log, N = 1 to $((count - 1))"
for ((attempt = 0; ; attempt++)); do
  start
  attend
  ((code != 0 && code != 2 && attempt < flag[restarts])) && [[ $interrupted == no ]] || exit "$code"
  say "status $code: starting all processes again, restart $((attempt + 1)) of ${flag[restarts]}"
done
