# shellcheck shell=bash disable=SC2154 # what is not set here is set by session-lib.sh, which comes before
# Arguments: the session's folder, seconds of grace. Ends everything it started, then says how it ended.
dir=$1
deadline=$((SECONDS + $2))
declare -A told=()

# left: print what still runs, the trainer and all that came out of it.
left() {
  marked "CLOUDTRAIN_SESSION=$dir"
  alive "$dir/trainer" && printf '%s\n' "$pid"
}

# asked: print who is asked to end next: the trainer, or its shell with what that runs; and
# once they are gone, whatever they left behind.
asked() {
  if ! alive "$dir/trainer"; then
    left
    return
  fi
  printf '%s\n' "$pid"
  [[ $(<"/proc/$pid/comm") == *sh ]] && tr ' ' '\n' <"/proc/$pid/task/$pid/children"
}

# terminate: ask them, each once, and the next only when those are gone: a trainer that
# writes a last checkpoint still needs its own workers.
terminate() {
  local each
  for each in "${!told[@]}"; do
    ticks "$each" >/dev/null && return
  done
  for each in $(asked 2>/dev/null); do
    [[ ${told[$each]-} ]] || kill -TERM "$each" 2>/dev/null
    told[$each]=yes
  done
}

# finish: end all of them.
finish() {
  local each
  for each in $(left); do
    kill -KILL "$each" 2>/dev/null
  done
}

main() {
  [[ -s $dir/exit ]] || : >"$dir/stop" || exit 1 # a supervisor that still prepares starts nothing any more
  while alive "$dir/supervisor" || [[ -n $(left) ]]; do
    if ((SECONDS < deadline)); then
      terminate
    elif [[ -n $(left) ]]; then
      finish
    elif ((SECONDS > deadline + 5)) && alive "$dir/supervisor"; then
      kill -KILL "$pid"
    fi
    pause 0.05
  done
  if [[ -s $dir/screen ]]; then
    [[ -s $dir/screendir ]] && SCREENDIR=$(<"$dir/screendir") && export SCREENDIR
    screen -S "$(<"$dir/screen")" -X quit >/dev/null 2>&1
    screen -wipe >/dev/null 2>&1
  fi
  describe "$dir"
}

main
