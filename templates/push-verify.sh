# shellcheck shell=bash disable=SC2154 # push-lib.sh comes before
# Arguments: folder, manifest. Prints `sha256  path`, ended by NUL, for every file that was pushed.
(cd "$1" && sed -z -n 's/^f//p' "$2.names" | xargs -0 -r sha256sum -z -- 2> /dev/null) || exit 0
