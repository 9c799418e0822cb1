# shellcheck shell=bash
# Arguments: data folder, marker, digest. Input: records path, size, address, each ended by NUL.
# Fetches what is not here yet, eight at a time, beside its place; whole or not at all.
set -eu
export LC_ALL=C
umask 022
data=$1 marker=$2 digest=$3 new=$1.fetching
if [ -f "$marker" ] && [ "$(cat "$marker")" = "$digest" ] && [ -d "$data" ]; then cat > /dev/null; exit 0; fi
command -v curl > /dev/null || { echo 'the machine has no curl' >&2; exit 64; }
mkdir -p "$new" "${marker%/*}"
cd "$new"
quoted() { local text=${1//\\/\\\\}; printf '"%s"' "${text//\"/\\\"}"; }
wanted=$(mktemp)
trap 'rm -f "$wanted"' EXIT
while IFS= read -r -d '' path && IFS= read -r -d '' size && IFS= read -r -d '' url; do
    printf '%s %s\0' "$size" "$path" >> "$wanted"
    if [ "$(stat -c %s -- "$path" 2> /dev/null)" = "$size" ]; then continue; fi
    if [ "$size" = 0 ]; then mkdir -p "$(dirname "$path")"; : > "$path"; continue; fi
    printf 'url = %s\noutput = %s\n' "$(quoted "$url")" "$(quoted "$path")"
done | curl -fsS --retry 3 --create-dirs --parallel --parallel-max 8 -K - 2>&1 | tail -n 3 >&2 || :
while IFS= read -r -d '' record; do
    if [ "$(stat -c %s -- "${record#* }" 2> /dev/null)" != "${record%% *}" ]; then
        echo "did not come whole: ${record#* }" >&2; exit 65
    fi
done < "$wanted"
rm -rf "$data"
mv "$new" "$data"
printf '%s\n' "$digest" > "$marker"
