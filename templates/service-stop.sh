# shellcheck shell=bash disable=SC2154 # what is not set here is set by session-lib.sh, which comes before
# Arguments: the folder of all services. Ends them and whatever they started, notebooks too.

# left DIR: print what still runs of one service.
left() {
  marked "CLOUDTRAIN_SERVICE=$1"
  alive "$1/process" && printf '%s\n' "$pid"
}

main() {
  local dir each deadline
  for dir in "$1"/*/; do
    dir=${dir%/}
    [[ -e $dir/process ]] || continue
    alive "$dir/process" && kill -TERM "$pid"
    deadline=$((SECONDS + 5))
    while [[ -n $(left "$dir") ]]; do
      if ((SECONDS >= deadline)) || ! alive "$dir/process"; then
        for each in $(left "$dir"); do
          kill -KILL "$each" 2>/dev/null
        done
      fi
      pause 0.05
    done
    rm -f "$dir/process" "$dir/port" "$dir/token"
  done
}

main "$@"
