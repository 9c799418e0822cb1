# shellcheck shell=bash disable=SC2154 # what is not set here is set by session-lib.sh, which comes before
# Arguments: the session's folder, tail's -n, `follow` or `once`, and the word before the last line.
dir=$1
log=$1/train.log
lines=$2
mode=$3
last=$4

# life: last as long as the session; its trainer may be another one meanwhile.
life() {
  while alive "$dir/supervisor" || alive "$dir/trainer"; do
    pause 0.2
  done
}

# beat PID: now and then a zero byte, so that either side notices when the other is gone.
beat() {
  trap '' PIPE
  while pause 15; do
    printf '\0' 2>/dev/null || kill "$1" 2>/dev/null || return
  done
}

main() {
  local reader beats lives
  look "$dir"
  until [[ $mode == once || $state != running ]] || alive "$dir/trainer"; do
    pause 0.1
    look "$dir"
  done
  if [[ $mode == follow && $state == running ]]; then
    life &
    lives=$!
    tail -n "$lines" -s 0.2 -F --pid="$lives" "$log" 2>/dev/null &
    reader=$!
    beat "$reader" &
    beats=$!
    wait "$reader"
    kill "$beats" "$lives" 2>/dev/null
    wait "$beats" "$lives" 2>/dev/null
  else
    tail -n "$lines" "$log" 2>/dev/null
  fi
  printf '\n%s%s\n' "$last" "$(describe "$dir")"
}

main
