# shellcheck shell=bash disable=SC2154 # push-lib.sh comes before
# Arguments: folder, manifest, digest, stat digest, for each push that is asked about.
while [ $# -ge 4 ]; do
    if same "$1" "$2" "$3" "$4"; then printf 'same\n'; else printf 'differs\n'; fi
    shift 4
done
