# shellcheck shell=bash # told-lib.sh comes before
# Arguments: archive, its SHA-256 or nothing, protocol. Input: the address, which may hold a right to it
# and so is in no process list.
set -u
export LC_ALL=C
archive=$1 sha256=$2 protocol=$3
IFS= read -r url
part=$archive.part size=$archive.size
[ -f "$archive" ] && exit 0
here() { stat -c %s "$part" 2> /dev/null || echo 0; }
known() { cat "$size" 2> /dev/null || echo 0; }
far() { tell "$(here)" "$(known)"; }
beside far
alone "${archive%/*}/.lock"
[ -f "$archive" ] && exit 0

sized() { # Input: the headers of every answer. Writes how long all of it is; an address in them goes nowhere.
    local name value length=0 whole=0
    while IFS=': ' read -r name value; do
        value=${value%$'\r'}
        case "${name,,}" in
        http/*) length=0 whole=0;;
        content-length) length=$value;;
        content-range) whole=${value##*/};;
        $'\r' | '')
            [ "$whole" = 0 ] || length=$whole
            [[ $length =~ ^[0-9]{1,15}$ ]] && printf '%s\n' "$length" > "$size";;
        esac
    done
}
get() {
    local quoted=${url//\\/\\\\}
    printf 'url = "%s"\n' "${quoted//\"/\\\"}" |
        curl -gfsSL --retry 3 --proto "=$protocol" -C - -o "$part" -D >(sized) -K -
}
if command -v curl > /dev/null; then
    rm -f "$size"
    get
    case $? in
    0) ;;
    22) [ -f "$part" ] && [ "$(here)" = "$(known)" ];; # there is nothing behind its end
    33) rm -f "$part" && get;; # not from the middle, says the server
    *) false;;
    esac
elif command -v wget > /dev/null; then
    # It names the address in what it says.
    said=$(printf '%s\n' "$url" | wget -nv -c -O "$part" -i - 2>&1) ||
        { sed -E 's#https?://[^ ]*#the address#g' <<< "$said" >&2; false; }
else echo 'the machine has neither curl nor wget' >&2; exit 64
fi || exit 65
rm -f "$size"
if [ -n "$sha256" ] && ! printf '%s  %s\n' "$sha256" "$part" | sha256sum -c --status; then
    rm -f "$part"
    echo 'what came has another SHA-256 than dataset.sha256' >&2; exit 66
fi
mv "$part" "$archive"
