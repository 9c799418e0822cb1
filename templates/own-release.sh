# shellcheck shell=bash disable=SC2154 # what is not set here is set by session-lib.sh, which comes before
# Arguments: the run's slug, `remove` or `keep`, seconds of grace. Ends everything that this run
# started here, and nothing else; takes its marker away, and with `remove` its files.
root=$HOME/cloudtrain/$1
deadline=$((SECONDS + $3))

# ours: print every process that one of this run's sessions or services started.
ours() {
  local name
  for name in SESSION SERVICE; do
    grep -lszF -e "CLOUDTRAIN_$name=$root/" /proc/[0-9]*/environ | cut -d/ -f3
  done | sort -u
  for name in "$root/guard/process" "$root"/sessions/*/supervisor "$root"/sessions/*/trainer "$root"/services/*/process; do
    alive "$name" && printf '%s\n' "$pid"
  done
  return 0
}

# boxes SLUG HOW: remove what a Docker engine has of this run: its containers, and its image with `remove`.
boxes() {
  local engine=(docker)
  command -v docker >/dev/null || return 0
  timeout 10 docker version >/dev/null 2>&1 || engine=(sudo -n docker) # as the session asked it
  timeout 10 "${engine[@]}" version >/dev/null 2>&1 || return 0
  "${engine[@]}" ps --all --quiet --filter "label=cloudtrain.run=$1" |
    xargs -r "${engine[@]}" rm --force >/dev/null 2>&1
  [[ $2 != remove ]] || "${engine[@]}" image rm --force "cloudtrain/$1" >/dev/null 2>&1
}

# lists: put back what apt's archives were before `mirrors.apt`, where we may.
lists() {
  local file as_root=()
  [[ $(id -u) == 0 ]] || as_root=(sudo -n)
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    [[ ! -e $file.before-cloudtrain ]] || "${as_root[@]}" mv -f -- "$file.before-cloudtrain" "$file" 2>/dev/null
  done
}

# quit DIR: close the session's window, if it has one.
quit() {
  [[ -s $1/screen ]] && command -v screen >/dev/null || return
  [[ -s $1/screendir ]] && SCREENDIR=$(<"$1/screendir") && export SCREENDIR
  screen -S "$(<"$1/screen")" -X quit >/dev/null 2>&1
}

main() {
  local dir each told=' '
  [[ -d $root ]] || exit 0
  rm -f "$root/guard/guard.json"
  for dir in "$root"/sessions/[0-9]*; do
    [[ -d $dir && ! -s $dir/exit ]] && : >"$dir/stop"
  done
  while each=$(ours) && [[ -n $each ]]; do
    for each in $each; do
      if ((SECONDS >= deadline)); then
        kill -KILL "$each" 2>/dev/null
      elif [[ $told != *" $each "* ]]; then
        kill -TERM "$each" 2>/dev/null
        told+="$each "
      fi
    done
    ((SECONDS < deadline + 10)) || exit 6
    pause 0.05
  done
  for dir in "$root"/sessions/[0-9]*; do
    [[ -d $dir ]] && quit "$dir"
  done
  boxes "$1" "$2"
  rm -f "$root/run.json"
  if [[ $2 == remove ]]; then
    # Read-only folders, such as a package's, must not stop it.
    chmod -R u+rwX "$root" 2>/dev/null
    rm -rf -- "$root" || exit 7
    # Tools that runs share go with the last of them.
    if ! compgen -G "$HOME/cloudtrain/*/" >/dev/null; then
      rm -rf -- "$HOME/.cloudtrain" "$HOME/cloudtrain/.locks"
      lists
    fi
    rmdir "$HOME/cloudtrain" 2>/dev/null
  fi
  exit 0
}

main "$@"
