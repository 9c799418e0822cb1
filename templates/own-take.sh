# shellcheck shell=bash disable=SC2154 # what is not set here is set by session-lib.sh, which comes before
# Arguments: the run's slug, and its marker's text. Writes the marker unless it is there, and
# prints HOME. Exit 3: what we need is missing. Exit 4: the folder is another run's.
main() {
  local root=$HOME/cloudtrain/$1 missing=() program
  [[ $(uname -s) == Linux ]] || missing+=("Linux")
  for program in tar find grep sed awk sort tail head cat mkdir mv setsid nohup sha256sum; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  if ((${#missing[@]})); then
    printf 'missing: %s\n' "${missing[*]}"
    exit 3
  fi
  umask 077
  mkdir -p "$root" || exit 5
  # Written under another name first: of two that take one folder, both see a whole marker.
  [[ -e $root/run.json ]] || save "$root/run.json" "$2"
  printf '%s\n' "$HOME"
}

main "$@"
