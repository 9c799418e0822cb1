# shellcheck shell=bash disable=SC2034,SC2317
# What every script about sessions and services shares. Bash, coreutils, grep and /proc
# only: a bare machine has no python3. A process is known by its number together with
# its start time and the boot it belongs to, because numbers are used again.

read -r boot </proc/sys/kernel/random/boot_id

# ticks PID: print its start time; fail when it is gone or only a zombie.
ticks() {
  local stat fields
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  read -ra fields <<<"${stat##*) }" # the name before it may hold spaces and parentheses
  [[ ${fields[0]-X} != [ZX] ]] && printf '%s\n' "${fields[19]}"
}

# save FILE TEXT: write a small file whole or not at all.
save() {
  printf '%s\n' "$2" >"$1.part" && { sync "$1.part" 2>/dev/null || :; } && mv -f "$1.part" "$1"
}

# remember FILE PID: note which process that is.
remember() {
  printf '%s %s %s\n' "$boot" "$2" "$(ticks "$2")" >"$1.part" && mv -f "$1.part" "$1"
}

# alive FILE: whether the remembered process still runs; its number is then in $pid.
alive() {
  local of began now
  { read -r of pid began <"$1"; } 2>/dev/null || return 1
  [[ $of == "$boot" ]] && now=$(ticks "$pid") && [[ $now == "$began" ]]
}

# marked NAME=VALUE: print the processes that were started with it.
marked() {
  grep -lszxF -e "$1" /proc/[0-9]*/environ | cut -d/ -f3
}

# pause SECONDS: sleep without a process that could outlive us.
pause() {
  read -rt "$1" <> <(:) || :
}

# look DIR: set $state, $code, $ended and $began of a session.
look() {
  state=interrupted code='' ended='' began=''
  { read -r began <"$1/started"; } 2>/dev/null || :
  local ours=gone
  { alive "$1/supervisor" || alive "$1/trainer"; } && ours=here
  # Asked after the processes: who has gone by then has written it.
  if { read -r code ended <"$1/exit"; } 2>/dev/null; then
    [[ $code == 0 ]] && state=finished || state=failed
  elif [[ $ours == here ]]; then
    state=running
  elif [[ -e $1/stop ]]; then
    state=failed # nothing goes on with what was asked to end
  fi
}

# describe DIR: print a session as one line of tab-separated fields.
describe() {
  local kind='' run_dir='' screen='' stopped=''
  { read -r kind <"$1/kind"; } 2>/dev/null || :
  { read -r run_dir <"$1/run_dir"; } 2>/dev/null || :
  { read -r screen <"$1/screen"; } 2>/dev/null || :
  [[ -e $1/stop ]] && stopped=1
  look "$1"
  printf '%s\t' "${1##*/}" "$kind" "$state" "$screen" "$run_dir" "$began" "$ended" "$code"
  printf '%s\n' "$stopped"
}

# numbers ROOT: print the session folders' names, oldest first.
numbers() {
  local found
  for found in "$1"/sessions/[0-9]*; do
    [[ -d $found ]] && printf '%s\n' "${found##*/}"
  done | sort -n
}

# guard_said ROOT: print what the guard of the machine, or the one beside the session, has written, and
# when, with the time at which the machine began: what it left from before is no sign of it.
guard_said() {
  local place name
  for place in /var/lib/cloudtrain-guard "$HOME/.local/state/cloudtrain-guard" "$1/guard/state"; do
    [[ -s $place/status.json ]] || continue
    for name in guard:status notice:notice receipt:receipt; do
      [[ -s $place/${name#*:}.json ]] && printf '%s\t%s\n' "${name%:*}" "$(<"$place/${name#*:}.json")"
    done
    printf 'written\t%s %s\n' "$(stat -c %Y "$place/status.json")" "$(sed -n 's/^btime //p' /proc/stat)"
    return 0
  done
}
