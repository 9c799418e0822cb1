# shellcheck shell=bash disable=SC2154 # push-lib.sh comes before
# Arguments: folder, manifest, length of the gzipped names. Input: those names, then a tar stream.
# Deletes what earlier pushes left and this one does not have, and unpacks the rest.
set -e -o pipefail
folder=$1 manifest=$2 length=$3
mkdir -p "$folder" "${manifest%/*}"
rm -f "$manifest.digest"
head -c "$length" | gzip -dc > "$manifest.new"
touch "$manifest.names"
sort -zu "$manifest.names" > "$manifest.old"
sort -zu "$manifest.new" | comm -z -23 "$manifest.old" - > "$manifest.gone"
cd "$folder"
sed -z -n 's/^[fl]//p' "$manifest.gone" | xargs -0 -r rm -f --
sed -z -n 's/^d//p' "$manifest.gone" | sort -zr | xargs -0 -r rmdir -p --ignore-fail-on-non-empty -- 2>/dev/null || :
sed -z -n -E 's/^[fl](.*)\/[^\/]*$/\1/p' "$manifest.gone" | sort -zur |
    xargs -0 -r rmdir -p --ignore-fail-on-non-empty -- 2>/dev/null || :
rm -f "$manifest.old" "$manifest.gone"
mv "$manifest.new" "$manifest.names"
tar -xpf - --no-same-owner
