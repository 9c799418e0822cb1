# shellcheck shell=bash
# Arguments: the run's folder of the framework, the session's log, the project folder or nothing, the
# folder of secured copies or nothing. Prints records `mark size seconds path`, ended by NUL: R of the
# run, L the log, S secured, P of the project, where a script's outputs are what is newer than the
# session's start. A link to a file counts as that file (`best.pt -> e12.pt`), unless it leads out of
# both folders.
set -u
export LC_ALL=C
run=$1 log=$2 project=$3 secured=${4-}
race=(-ignore_readdir_race) # a trainer renames its files while they are listed
places=()
for place in "$run" "$project"; do [ -z "$place" ] || places+=("$(realpath -m -- "$place")"); done
inside() { # path, without links in it
  local place
  for place in "${places[@]}"; do
    case $1 in "$place"/*) return 0;; esac
  done
  return 1
}
# shellcheck disable=SC2016 # the inner script's own
stats='newer=(); [ -z "$2" ] || newer=(-newer "$2")
  find -L "${@:3}" -maxdepth 0 -type f "${newer[@]}" -printf "$1 %s %T@ %p\0" 2> /dev/null || :'
links() { # mark, a file that the linked ones are newer than or nothing; input: links, each ended by NUL
  local links=() kept=() number=0
  while IFS= read -r -d '' link; do links+=("$link"); done
  [ "${#links[@]}" -gt 0 ] || return 0
  while IFS= read -r -d '' real; do
    ! inside "$real" || kept+=("${links[number]}")
    number=$((number + 1))
  done < <(printf '%s\0' "${links[@]}" | xargs -0 realpath -mz --)
  [ "${#kept[@]}" -eq 0 ] || printf '%s\0' "${kept[@]}" | xargs -0 bash -c "$stats" links "$1" "$2"
}
if [ -d "$run" ]; then
  find "$run" "${race[@]}" -type f -printf 'R %s %T@ %p\0'
  find "$run" "${race[@]}" -type l -xtype f -print0 | links R ''
fi
[ ! -f "$log" ] || find "$log" "${race[@]}" -maxdepth 0 -printf 'L %s %T@ %p\0'
[ -z "$secured" ] || [ ! -d "$secured" ] || find "$secured" "${race[@]}" -type f ! -name '.*' -printf 'S %s %T@ %p\0'
if [ -n "$project" ] && [ -d "$project" ]; then
  started=${log%/*}/started
  newer=()
  if [ -e "$started" ]; then newer=(-newer "$started"); else started=; fi
  find "$project" "${race[@]}" -name .git -prune -o -type f "${newer[@]}" -printf 'P %s %T@ %p\0'
  find "$project" "${race[@]}" -name .git -prune -o -type l -xtype f -print0 | links P "$started"
fi
