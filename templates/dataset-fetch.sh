# shellcheck shell=bash
# Arguments: archive, its SHA-256 or nothing, protocol. Input: the address, which may hold a right to it
# and so is in no process list.
set -u
export LC_ALL=C
archive=$1 sha256=$2 protocol=$3
IFS= read -r url
mkdir -p "${archive%/*}"
[ -f "$archive" ] && exit 0
if command -v curl > /dev/null; then
    quoted=${url//\\/\\\\}
    printf 'url = "%s"\n' "${quoted//\"/\\\"}" |
        curl -gfsSL --retry 3 --proto "=$protocol" -C - -o "$archive.part" -K -
elif command -v wget > /dev/null; then
    # It names the address in what it says.
    said=$(printf '%s\n' "$url" | wget -nv -c -O "$archive.part" -i - 2>&1) ||
        { sed -E 's#https?://[^ ]*#the address#g' <<< "$said" >&2; false; }
else echo 'the machine has neither curl nor wget' >&2; exit 64
fi || exit 65
if [ -n "$sha256" ] && ! printf '%s  %s\n' "$sha256" "$archive.part" | sha256sum -c --status; then
    rm -f "$archive.part"
    echo 'what came has another SHA-256 than dataset.sha256' >&2; exit 66
fi
mv "$archive.part" "$archive"
