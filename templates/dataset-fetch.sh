# shellcheck shell=bash # told-lib.sh comes before
# Arguments: archive, its SHA-256 or nothing, protocol, `verify` to hash one that is there. Input: the
# address, which may hold a right to it and so is in no process list.
set -u
export LC_ALL=C
archive=$1 sha256=$2 protocol=$3 verify=${4-}
IFS= read -r url
part=$archive.part size=$archive.size
proven() { [ -z "$sha256" ] || printf '%s  %s\n' "$sha256" "$1" | sha256sum -c --status; }
[ -z "$verify" ] && [ -f "$archive" ] && exit 0
here() { stat -c %s "$part" 2> /dev/null || echo 0; }
known() { cat "$size" 2> /dev/null || echo 0; }
far() { tell "$(here)" "$(known)"; }
beside far
alone "${archive%/*}/.lock" "${archive##*/}"
if [ -f "$archive" ]; then
    if [ -z "$verify" ] || proven "$archive"; then exit 0; fi
    differs 1
    rm -f "$archive"
fi

sized() { # Input: the headers of every answer. Writes how long all of it is; an address in them goes nowhere.
    local name value status='' length=0 whole=0
    while IFS=': ' read -r name value; do
        value=${value%$'\r'}
        case "${name,,}" in
        http/*) status=${value%% *} length=0 whole=0;;
        content-length) length=$value;;
        content-range) whole=${value##*/};;
        $'\r' | '')
            case $status in
            2??) [ "$whole" = 0 ] || length=$whole;;
            416) length=$whole;; # what comes with it is a page that says so
            *) continue;;
            esac
            [[ $length =~ ^[0-9]{1,15}$ ]] && printf '%s\n' "$length" > "$size";;
        esac
    done
}
get() { # 63: there is no room for it
    local room
    room=$(free "${archive%/*}")
    [[ $room =~ ^[0-9]+$ ]] || room=0 # no limit
    printf 'url = %s\n' "$(quoted "$url")" |
        curl -gfsSL "${patient[@]}" --proto "=$protocol" --max-filesize "$((room * 1024))" \
            -C - -o "$part" -D - -K - | sized
    return "${PIPESTATUS[1]}"
}
if command -v curl > /dev/null; then
    rm -f "$size"
    get
    code=$?
    if [ "$code" = 33 ] || { [ "$code" = 22 ] && [ "$(known)" -gt 0 ] && [ "$(here)" -gt "$(known)" ]; }; then
        rm -f "$part" # not from the middle, says the server; or what is here is of another file
        get
        code=$?
    fi
    case $code in
    0) ;;
    22) [ -f "$part" ] && [ "$(here)" = "$(known)" ];; # there is nothing behind its end
    *) false;;
    esac
elif command -v wget > /dev/null; then
    # It names the address in what it says.
    said=$(printf '%s\n' "$url" | wget -nv -T 60 -c -O "$part" -i - 2>&1) ||
        { sed -E 's#https?://[^ ]*#the address#g' <<< "$said" >&2; false; }
else echo 'the machine has neither curl nor wget' >&2; exit 64
fi || {
    if [ "${code-}" = 63 ] || full "${archive%/*}"; then
        echo "No space left on device: $(known) bytes, and $(free "${archive%/*}") KB are free" >&2
        exit 69
    fi
    [ "${code-}" != 22 ] || echo 'hint: correct dataset.source, and run the same command again' >&2
    exit 65
}
rm -f "$size"
if ! proven "$part"; then
    came=$(sha256sum < "$part")
    rm -f "$part"
    printf '%s\n' "what came has another SHA-256 than dataset.sha256: ${came:0:64}" \
        'hint: where that is what you want, write it there; else correct dataset.source' >&2
    exit 66
fi
mv "$part" "$archive"
