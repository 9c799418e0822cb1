# shellcheck shell=bash disable=SC2154 # what is not set here is set by session-lib.sh, which comes before
# Arguments: the run's root. Prints a line for each session, oldest first.
main() {
  local number
  numbers "$1" | while read -r number; do
    describe "$1/sessions/$number"
  done
}

main "$@"
