# shellcheck shell=bash
# Input: paths, each ended by NUL. Prints those that are there, the same way.
while IFS= read -r -d '' path; do [ ! -e "$path" ] || printf '%s\0' "$path"; done
