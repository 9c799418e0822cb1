# shellcheck shell=bash disable=SC2154 # push-lib.sh comes before
# Arguments: folder, manifest, `some` where the input names the files, each ended by NUL. Prints
# `sha256  path`, ended by NUL, for these, or for every file that was pushed.
named() { if [ "${3-}" = some ]; then cat; else sed -z -n 's/^f//p' "$2.names"; fi; }
(cd "$1" && named "$@" | xargs -0 -r sha256sum -z -- 2> /dev/null) || exit 0
