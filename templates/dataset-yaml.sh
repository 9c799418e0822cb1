# shellcheck shell=bash
# Arguments: data folder, how a data.yaml of ours begins. Prints the data.yaml that came: its path, NUL,
# its text; nothing when ours was written from it.
export LC_ALL=C
cd "$1" || exit 1
mark=$2
first=$(head -n 1 data.yaml 2> /dev/null | tr -d '\0')
other=()
case $first in
"${mark}what was here") exit 0;;
"$mark"*) other=(! -path ./data.yaml);;
esac
find . -maxdepth 3 "${other[@]}" \( -name data.yaml -o -name dataset.yaml \) -xtype f -printf '%d %P\0' |
    sort -zn | head -zn 1 |
    while IFS= read -r -d '' found; do
        found=${found#* }
        hash=$(sha256sum < "$found")
        if [ "$first" = "$mark${hash%% *}" ]; then continue; fi
        printf '%s\0' "$found"
        cat -- "$found"
    done
