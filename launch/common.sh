# What the launchers share: help, flags and dry runs. It is sourced, and works on two variables of the launcher:
#
#   flag    an associative array of the flags and their defaults; a flag whose default is "no" takes no value
#   lists   the names of the flags that may be repeated, whose values are joined by line breaks
#
# `parse` leaves what follows `--` in the array `arguments`: the arguments of rfn-jax.
# shellcheck shell=bash

[[ ${BASH_VERSINFO[0]} -gt 4 || ${BASH_VERSINFO[0]}.${BASH_VERSINFO[1]} == 4.4 ]] ||
  { echo "${0##*/}: bash 4.4 or later is needed, this is $BASH_VERSION" >&2 && exit 2; }

declare -A flag=()
lists=''

exec 3>&1 # where a dry run prints, also from inside $(...)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {
  say "$@"
  exit 2
}

# The comment at the head of the launcher.
help() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

parse() {
  arguments=()
  flag[dry-run]=no
  local name value
  while (($#)); do
    case $1 in
      --) shift && arguments=("$@") && break ;;
      --help | -h) help && exit 0 ;;
      --*) ;;
      *) fail "unexpected argument '$1'; the arguments of rfn-jax follow --" ;;
    esac
    name=${1%%=*} name=${name#--} value=${1#*=}
    [[ -n $name && -v flag[$name] ]] || fail "unknown flag '${1%%=*}'; see --help"
    if [[ ${flag[$name]} == no || ${flag[$name]} == yes ]]; then
      [[ $1 == "--$name" ]] || fail "--$name takes no value, got '$value'"
      value=yes
    elif [[ $1 == "--$name" || -z $value ]]; then
      fail "--$name needs a value: --$name=VALUE"
    elif [[ " $lists " == *" $name "* && -n ${flag[$name]} ]]; then
      value=${flag[$name]}$'\n'$value
    fi
    flag[$name]=$value
    shift
  done
  ((${#arguments[@]})) || fail "the arguments of rfn-jax are missing, such as: -- run --config=FILE --workdir=DIRECTORY"
}

required() {
  local name
  for name; do [[ -n ${flag[$name]} ]] || fail "--$name=VALUE is required; see --help"; done
}

integer() { # NAME LEAST
  [[ ${flag[$1]} =~ ^(0|[1-9][0-9]{0,8})$ && ${flag[$1]} -ge $2 ]] ||
    fail "--$1 must be an integer of at least $2, got '${flag[$1]}'"
}

# The values of a flag that may be repeated, one a line.
values() { [[ -z ${flag[$1]} ]] || printf '%s\n' "${flag[$1]}"; }

# Words as a shell reads them back.
quoted() {
  local word line=
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=@,%+-]+$ ]] || word=${word@Q}
    line+="$word "
  done
  printf '%s' "${line% }"
}

# Runs a command, or prints it in a dry run.
run() {
  if [[ ${flag[dry-run]} == yes ]]; then
    printf '%s\n' "$(quoted "$@")" >&3
  else
    "$@"
  fi
}
