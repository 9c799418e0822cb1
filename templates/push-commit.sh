# shellcheck shell=bash disable=SC2154 # push-lib.sh comes before
# Arguments: folder, manifest, digest, stat digest. Records the push when all of it is there.
set -- "$(stats "$1" "$2.names" | sha256sum)" "$4" "$2.digest" "$3"
if [ "${1%% *}" != "$2" ]; then printf 'mismatch\n'; exit 0; fi
printf '%s\n' "$4" > "$3.part"
mv "$3.part" "$3"
printf 'same\n'
