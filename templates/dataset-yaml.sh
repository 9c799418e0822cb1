# shellcheck shell=bash
# Arguments: data folder. Prints the data.yaml found: its path, NUL, its text.
export LC_ALL=C
cd "$1" || exit 1
find . -maxdepth 3 \( -name data.yaml -o -name dataset.yaml \) -printf '%d %P\0' | sort -zn | head -zn 1 |
    while IFS= read -r -d '' found; do printf '%s\0' "${found#* }"; cat -- "${found#* }"; done
