# shellcheck shell=bash disable=SC2154 # for dataset-lib.sh, which may come after
# How a script says how far it is: lines of its output that `transfer/told.py` reads.
beat=''
# tell DONE TOTAL [FILES FILES_TOTAL DETAIL]: in bytes, 0 for unknown.
tell() { printf '@at\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "${3:-0}" "${4:-0}" "${5-}"; }
# beside COMMAND...: run it every second beside what follows, until `quiet`. It is a sign of life, too.
beside() {
    # Its sleep holds nothing: the channel ends when nobody has its output any more.
    { while sleep 1 > /dev/null && kill -0 $$; do "$@" || :; done; } 2> /dev/null < /dev/null &
    beat=$!
}
quiet() { [ -z "$beat" ] || kill "$beat" 2> /dev/null || :; }
trap quiet EXIT
# alone FILE: wait for another script that works on the same, such as one whose line broke.
alone() {
    mkdir -p "${1%/*}"
    exec 8> "$1"
    if command -v flock > /dev/null; then flock 8; fi
}
