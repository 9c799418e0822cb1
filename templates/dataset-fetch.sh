# shellcheck shell=bash # told-lib.sh comes before
# Arguments: archive, its SHA-256 or nothing, protocol, `verify` to hash one that is there. Input: the
# address, which may hold a right to it and so is in no process list.
set -u
export LC_ALL=C
archive=$1 sha256=$2 protocol=$3 verify=${4-}
IFS= read -r url
part=$archive.part size=$archive.size version=$archive.version
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

# sized: input: the headers of every answer. Writes how long all of it is, and of which version what comes from
# its beginning; an address in them goes nowhere. Fails when what comes is the end of another version.
sized() {
    local name value status='' length=0 whole=0 etag='' date='' other=0
    while IFS=': ' read -r name value; do
        value=${value%$'\r'}
        case "${name,,}" in
        http/*) status=${value%% *} length=0 whole=0 etag='' date='';;
        content-length) length=$value;;
        content-range) whole=${value##*/};;
        etag) case $value in '"'*'"') etag=$value;; esac;; # a weak one says nothing about bytes
        last-modified) date=$value;;
        $'\r' | '')
            case $status in
            2??) [ "$whole" = 0 ] || length=$whole;;
            416) length=$whole;; # what comes with it is a page that says so
            *) continue;;
            esac
            [[ $length =~ ^[0-9]{1,15}$ ]] && printf '%s\n' "$length" > "$size"
            case $status in
            206 | 416) if other_than "$etag" "$date"; then other=1; rm -f "$part"; fi;;
            *) [ "$from" -gt 0 ] || printf '%s\n' "${etag:-$date}" > "$version";;
            esac;;
        esac
    done
    return "$other"
}
of() { head -n 1 "$version" 2> /dev/null; }
other_than() { # ETag, date: whether an answer is of another version than what is here; not when nobody knows
    local here now=$2
    here=$(of)
    case $here in '"'*) now=$1;; esac
    [ -n "$here" ] && [ -n "$now" ] && [ "$now" != "$here" ]
}
get() { # 63: there is no room for it. 33: not from the middle
    local room from said codes
    from=$(here) said=$(of)
    room=$(free "${archive%/*}")
    [[ $room =~ ^[0-9]+$ ]] || room=0 # no limit
    {
        printf 'url = %s\n' "$(quoted "$url")"
        # A server that has another version by now sends all of it; half of each would be nobody's archive.
        if [ "$from" -gt 0 ] && [ -n "$said" ]; then printf 'header = %s\n' "$(quoted "If-Range: $said")"; fi
    } |
        curl -gfsSL "${patient[@]}" --proto "=$protocol" --max-filesize "$((room * 1024))" \
            -C - -o "$part" -D - -K - | sized
    codes=("${PIPESTATUS[@]}")
    [ "${codes[2]}" = 0 ] || return 33
    return "${codes[1]}"
}
if command -v curl > /dev/null; then
    rm -f "$size"
    [ -e "$part" ] || rm -f "$version"
    get
    code=$?
    if [ "$code" = 33 ] || { [ "$code" = 22 ] && [ "$(known)" -gt 0 ] && [ "$(here)" -gt "$(known)" ]; }; then
        rm -f "$part" "$version" # not from the middle, says the server; or what is here is of another file
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
rm -f "$size" "$version"
if ! proven "$part"; then
    came=$(sha256sum < "$part")
    rm -f "$part"
    printf '%s\n' "what came has another SHA-256 than dataset.sha256: ${came:0:64}" \
        'hint: where that is what you want, write it there; else correct dataset.source' >&2
    exit 66
fi
mv "$part" "$archive"
