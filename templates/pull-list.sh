# shellcheck shell=bash
# Arguments: the run's folder of the framework, the session's log, the project folder or nothing, the
# folder of secured copies or nothing. Prints records `mark size seconds path`, ended by NUL: R of the
# run, L the log, S secured, P of the project, where a script's outputs are what is newer than the
# session's start.
set -u
export LC_ALL=C
run=$1 log=$2 project=$3 secured=${4-}
race=(-ignore_readdir_race) # a trainer renames its files while they are listed
[ ! -d "$run" ] || find "$run" "${race[@]}" -type f -printf 'R %s %T@ %p\0'
[ ! -f "$log" ] || find "$log" "${race[@]}" -maxdepth 0 -printf 'L %s %T@ %p\0'
[ -z "$secured" ] || [ ! -d "$secured" ] || find "$secured" "${race[@]}" -type f ! -name '.*' -printf 'S %s %T@ %p\0'
if [ -n "$project" ] && [ -d "$project" ]; then
  started=${log%/*}/started
  newer=()
  [ ! -e "$started" ] || newer=(-newer "$started")
  find "$project" "${race[@]}" -name .git -prune -o -type f "${newer[@]}" -printf 'P %s %T@ %p\0'
fi
