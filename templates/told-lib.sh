# shellcheck shell=bash disable=SC2154,SC2034 # for dataset-lib.sh, which may come after; not every script fetches
# How a script says how far it is: lines of its output that `transfer/told.py` reads.
beat='' beating=() waits=''
# tell DONE TOTAL [FILES FILES_TOTAL DETAIL]: in bytes, 0 for unknown.
tell() { printf '@at\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "${3:-0}" "${4:-0}" "${waits:-${5-}}"; }
# differs COUNT: so many files were other than they must be, and are replaced.
differs() { printf '@differ\t%s\n' "$1"; }
# beside COMMAND...: run it every second beside what follows, until `quiet`. It is a sign of life, too.
beside() {
    beating=("$@")
    # Its sleep holds nothing: the channel ends when nobody has its output any more.
    { while sleep 1 > /dev/null && kill -0 $$; do "$@" || :; done; } 2> /dev/null < /dev/null &
    beat=$!
}
quiet() { [ -z "$beat" ] || kill "$beat" 2> /dev/null || :; }
trap quiet EXIT
# free FOLDER: print how many KB its disk has left. full FOLDER: whether that is as good as nothing.
free() { df -Pk "$1" | awk 'NR == 2 { print $4 }'; }
full() { [ "$(free "$1")" -lt 65536 ]; }
# quoted TEXT: as a value in curl's own input, where addresses are in no process list. A value ends with its
# line there: a name that holds the end of one would go on as an option.
quoted() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"} text=${text//$'\n'/\\n} text=${text//$'\r'/\\r}
    printf '"%s"' "${text//$'\t'/\\t}"
}
# A server that stands still for a minute holds nobody up.
patient=(--retry 3 --connect-timeout 30 --speed-limit 1 --speed-time 60)

# alone FILE WORK: be the only script at FILE. One at the same work, such as one whose line broke, is
# waited for; one at other work is what a command that was corrected has left, and is ended.
alone() {
    mkdir -p "${1%/*}"
    exec 8>> "$1"
    command -v flock > /dev/null || return 0
    if ! flock -n 8; then _wait_for "$1" "$2"; fi
    printf '%s\n' "$2" > "$1"
    trap "echo 'a later command has other work there, and ended this' >&2; exit 75" TERM
}
_wait_for() {
    local now before='' signal=TERM shown=("${beating[@]:-}")
    quiet
    waits='waits for an earlier one'
    if [ -n "${shown[0]}" ]; then beside "${shown[@]}"; else beside tell 0 0; fi
    until flock -n 8; do
        sleep 1 > /dev/null
        IFS= read -r now < "$1" || now=''
        # Twice the same: who has just got the lock has not said yet what it works on.
        if [ -n "$now" ] && [ "$now" != "$2" ] && [ "$now" = "$before" ]; then
            _end "$signal" "$1"
            signal=KILL
        fi
        before=$now
    done
    quiet
    waits=''
    if [ -n "${shown[0]}" ]; then beside "${shown[@]}"; else beat=''; fi
}
# _end SIGNAL FILE: those that hold its lock now, and all below them. No number is remembered, so none
# can be another's by now.
_end() {
    local ours pids
    ours=$(_holders "$2" | tr '\n' ' ')
    pids=$(sed -nE 's/^([0-9]+) .*\) [A-Za-z] ([0-9]+) .*/\1 \2/p' /proc/[0-9]*/stat 2> /dev/null |
        awk -v ours="$ours" '
            BEGIN { n = split(ours, held, " "); for (i = 1; i <= n; i++) ends[held[i]] = 1 }
            { above[$1] = $2 }
            END { for (pid in above) { p = pid; while (p in above && !(p in ends)) p = above[p]; if (p in ends) print pid } }') || :
    # shellcheck disable=SC2086 # numbers
    [ -z "$pids" ] || kill -"$1" $pids 2> /dev/null || :
}
_holders() {
    local fd
    for fd in /proc/[0-9]*/fd/8; do
        if [ "$fd" -ef "$1" ] && grep -q '^lock:' "${fd%/fd/8}/fdinfo/8"; then
            fd=${fd#/proc/}
            printf '%s\n' "${fd%%/*}"
        fi
    done 2> /dev/null
}
