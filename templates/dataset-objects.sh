# shellcheck shell=bash # dataset-lib.sh comes before
# Arguments: data folder, marker, digest, files and bytes of it all. Input: records path, size, address, each ended by NUL.
# Fetches what is not here yet, eight at a time, beside its place; whole or not at all.
export LC_ALL=C
data=$1 marker=$2 digest=$3 files=$4 bytes=$5 new=$1.fetching-${3:0:12}
far() {
    local said
    said=$(find "$new" -type f -printf '%s\n' | awk '{ n++; b += $1 } END { printf "%.0f %d", b, n }')
    tell "${said% *}" "$bytes" "${said#* }" "$files"
}
if there; then cat > /dev/null; exit 0; fi
beside far
alone "$marker.lock"
if there; then cat > /dev/null; exit 0; fi
command -v curl > /dev/null || { echo 'the machine has no curl' >&2; exit 64; }
for old in "$data".fetching*; do [ "$old" = "$new" ] || rm -rf "$old"; done # of another source
mkdir -p "$new"
cd "$new"
quoted() { local text=${1//\\/\\\\}; printf '"%s"' "${text//\"/\\\"}"; }
wanted=$(mktemp)
trap 'quiet; rm -f "$wanted"' EXIT
while IFS= read -r -d '' path && IFS= read -r -d '' size && IFS= read -r -d '' url; do
    printf '%s %s\0' "$size" "$path" >> "$wanted"
    if [ "$(stat -c %s -- "$path" 2> /dev/null)" = "$size" ]; then continue; fi
    if [ "$size" = 0 ]; then mkdir -p "$(dirname "$path")"; : > "$path"; continue; fi
    printf 'url = %s\noutput = %s\n' "$(quoted "$url")" "$(quoted "$path")"
done | curl -gfsS --retry 3 --create-dirs --parallel --parallel-max 8 -K - 2>&1 | tail -n 3 >&2 || :
while IFS= read -r -d '' record; do
    if [ "$(stat -c %s -- "${record#* }" 2> /dev/null)" != "${record%% *}" ]; then
        echo "did not come whole: ${record#* }" >&2; exit 65
    fi
done < "$wanted"
clear_data
mv "$new" "$data"
whole
