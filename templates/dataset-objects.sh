# shellcheck shell=bash # dataset-lib.sh comes before
# Arguments: data folder, marker, digest, files and bytes of it all, `verify` to compare. Input: records
# path, size, address, each ended by NUL. Fetches what is not here yet, eight at a time, beside its place; whole or not at all.
export LC_ALL=C
data=$1 marker=$2 digest=$3 files=$4 bytes=$5 verify=${6-} new=$1.fetching-${3:0:12}
come() { find "$new" -type f -printf '%s\n' | awk '{ n++; b += $1 } END { printf "%.0f %d", b, n }'; }
come_empty() {
    case $1 in */*) mkdir -p "./${1%/*}";; esac # `dirname` in `$(...)` takes line ends from a name
    : > "./$1"
}
far() {
    local said
    said=$(come)
    tell "${said% *}" "$bytes" "${said#* }" "$files"
}
if [ -z "$verify" ] && there; then cat > /dev/null; exit 0; fi
wanted=$(mktemp) # it holds addresses, which are a right: readable for nobody else
trap 'quiet; rm -f "$wanted"' EXIT
beside far
cat > "$wanted" # before it waits: who sends it would wait as well
alone "$marker.lock" "$digest"
if [ -z "$verify" ] && there; then exit 0; fi
command -v curl > /dev/null || { echo 'the machine has no curl' >&2; exit 64; }
for old in "$data".fetching*; do [ "$old" = "$new" ] || rm -rf "$old"; done # of another source
mkdir -p "$new"
have=$(come) left=$((bytes - ${have% *}))
if [ $((left / 1024)) -gt "$(free "$new")" ]; then
    echo "No space left on device: $left bytes are to come, and $(free "$new") KB are free" >&2
    exit 69
fi
cd "$new"
still='' # of some versions, --silent does not silence --parallel, and those before 7.67 know nothing else
if curl --no-progress-meter -V > /dev/null 2>&1; then still=--no-progress-meter; fi
while IFS= read -r -d '' path && IFS= read -r -d '' size && IFS= read -r -d '' url; do
    if [ "$(stat -c %s "./$path" 2> /dev/null)" = "$size" ]; then continue; fi
    if [ "$size" = 0 ]; then come_empty "$path"; continue; fi
    printf 'url = %s\noutput = %s\n' "$(quoted "$url")" "$(quoted "./$path")" # `-` alone is no file to curl
done < "$wanted" |
    curl -gfsS ${still:+"$still"} "${patient[@]}" \
        --create-dirs --parallel --parallel-max 8 -K - 2>&1 | tail -n 3 >&2 || :
while IFS= read -r -d '' path && IFS= read -r -d '' size && IFS= read -r -d '' url; do
    if [ "$(stat -c %s "./$path" 2> /dev/null)" = "$size" ]; then continue; fi
    echo "did not come whole: $path" >&2
    if full "$new"; then echo 'No space left on device' >&2; exit 69; fi
    exit 65
done < "$wanted"
cd /
placed
