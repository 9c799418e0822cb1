# shellcheck shell=bash disable=SC2154 # what is not set here is set by session-lib.sh, which comes before
# Arguments: the run's root. Prints what the machine's guard says, a `name<TAB>JSON` a line.
printf 'now\t%s\n' "$(date +%s)"
guard_said "$1"
