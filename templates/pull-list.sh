# shellcheck shell=bash
# Arguments: the run's folder of the framework, the session's log, the project folder, the folder of
# secured copies or nothing, the kind that is configured now: the session's own counts. Prints records `mark size seconds path`, ended by NUL: J the
# session's own plan (its text, not a path), R of the run, L the log, S secured, P of the project, where a
# script's outputs are what is newer than the session's start and not than the start of the next one. A
# link to a file counts as that file (`best.pt -> e12.pt`), unless it leads out of both folders; of a link
# to a folder in the project D is the link, and after it T the folder.
set -u
export LC_ALL=C
run=$1 log=$2 project=$3 secured=${4-} kind=${5-}
{ IFS= read -r kind < "${log%/*}/kind"; } 2> /dev/null || :
[ "$kind" = script ] || project=''
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
  [ -z "${NEXT-}" ] || newer+=(! -newer "$NEXT")
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
folders() { # input: links to folders in the project, each ended by NUL
  local links=() number=0 top
  top=$(realpath -m -- "$project")
  while IFS= read -r -d '' link; do links+=("$link"); done
  [ "${#links[@]}" -gt 0 ] || return 0
  while IFS= read -r -d '' real; do
    case $real in
      "$top"/*) printf 'D 0 0 %s\0T 0 0 %s\0' "${links[number]}" "$project${real#"$top"}";;
    esac
    number=$((number + 1))
  done < <(printf '%s\0' "${links[@]}" | xargs -0 realpath -mz --)
}
next_start() { # of the session after this one, so that its outputs are not taken for this one's
  local here=${log%/*} other
  for other in "${here%/*}"/[0-9]*; do
    if [ -e "$other/started" ] && [ "$((10#${other##*/}))" -gt "$((10#${here##*/}))" ]; then
      printf '%s\n' "$other/started"
      return
    fi
  done
}
plan=${log%/*}/plan.json
[ ! -f "$plan" ] || printf 'J 0 0 %s\0' "$(tr -d '\0' < "$plan")"
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
  case ${log%/*} in */[0-9]*) NEXT=$(next_start);; *) NEXT='';; esac
  export NEXT
  [ -z "$NEXT" ] || newer+=(! -newer "$NEXT")
  find "$project" "${race[@]}" -name .git -prune -o -type f "${newer[@]}" -printf 'P %s %T@ %p\0'
  find "$project" "${race[@]}" -name .git -prune -o -type l -xtype f -print0 | links P "$started"
  find "$project" "${race[@]}" -name .git -prune -o -type l -xtype d -print0 | folders
fi
