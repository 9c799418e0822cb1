# shellcheck shell=bash disable=SC2154 # push-lib.sh comes before
# Arguments: folder, manifest, digest, stat digest. Prints `same`, or `differs`, rsync's path, free kB and what is there.
if same "$1" "$2" "$3" "$4"; then printf 'same\n'; exit 0; fi
at=$1; while [ ! -d "$at" ]; do at=$(dirname "$at"); done
printf 'differs\n%s\n%s\n' "$(command -v rsync)" "$(df -Pk "$at" | awk 'NR == 2 { print $4 }')"
[ ! -d "$1" ] || { cd "$1" && find . -type f -printf '%s %Ts %m %P\0' | gzip -1; }
