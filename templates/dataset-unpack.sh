# shellcheck shell=bash # dataset-lib.sh comes before
# Arguments: archive, data folder, marker, digest, `doubtful` for an archive that was fetched and that no
# SHA-256 speaks for: one that cannot be unpacked goes, or the next run would not fetch it again; `verify`
# to have what lies there compared with it.
export LC_ALL=C
archive=$1 data=$2 marker=$3 digest=$4 doubt=${5-} verify=${6-}
if [ -z "$verify" ] && there; then exit 0; fi
beside tell 0 0
alone "$marker.lock" "$digest"
if [ -z "$verify" ] && there; then exit 0; fi

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi > /dev/null 2>&1; }
# Step `base` installs it side by side with this; lists may be missing, or in that step's hands.
here() { # program, its package
    local end=$((SECONDS + 300))
    until command -v "$1" > /dev/null; do
        if ! as_root apt-get --version || [ "$SECONDS" -ge "$end" ]; then
            echo "this archive needs $1 there: apt-get install $2" >&2
            return 68
        fi
        as_root apt-get -o DPkg::Lock::Timeout=60 install -y -q "$2" && continue
        as_root apt-get update -q || :
        sleep 1
    done
}
unpack() {
    export LC_ALL=C.UTF-8 # bsdtar and unzip write names only in letters that the locale has
    case "${archive,,}" in
    *.tar | *.tar.gz | *.tgz | *.tar.bz2 | *.tbz2 | *.tar.xz | *.txz)
        case "${archive,,}" in
        *.xz | *.txz) here xz xz-utils || return;;
        *.bz2 | *.tbz2) here bzip2 bzip2 || return;;
        esac
        tar -xf "$archive" -C "$new" --no-same-owner --no-same-permissions;;
    *.zip)
        if command -v bsdtar > /dev/null; then bsdtar -xf "$archive" -C "$new" --no-same-owner
        elif command -v unzip > /dev/null; then unzip -q -o "$archive" -d "$new"
        else python3 -m zipfile -e "$archive" "$new"
        fi;;
    *)
        here bsdtar libarchive-tools || return
        bsdtar -xf "$archive" -C "$new" --no-same-owner --no-same-permissions;;
    esac
}

new="$data.unpacking"
rm -rf "$new"
mkdir -p "$new"
# A bomb is told by what it takes of the disk: a hundred times its own size and a GB, or no room left. What
# the whole disk lost is cheap to ask, but others write to it too: only the folder itself can convict.
before=$(free "$new") all=$(stat -c %s "$archive") limit=$((all * 100 / 1024 + 1048576))
stop() { # why, exit code
    kill -KILL -- "-$job" 2> /dev/null || :
    wait "$job" 2> /dev/null || :
    rm -rf "$new"
    echo "$1" >&2
    exit "$2"
}
at=0
far() { # how far those who read the archive are in it: what it unpacks to is known of no kind before its end
    local fd now=''
    for fd in /proc/[0-9]*/fd/[0-9]*; do
        if [ "$fd" -ef "$archive" ]; then
            now=$(sed -n 's/^pos:\t*//p' "${fd%/fd/*}/fdinfo/${fd##*/}")
            break
        fi
    done 2> /dev/null
    at=${now:-$at} # nobody reads it before its unpacker is installed, or while its links are looked at
    tell "$at" "$all"
}
check() {
    local now size
    now=$(free "$new")
    [ "$now" -ge 65536 ] || stop "No space left on device: $archive" 69
    [ $((before - now)) -gt "$limit" ] || return 0
    size=$(du -sk "$new" 2> /dev/null | cut -f 1)
    [ "${size:-0}" -le "$limit" ] || stop 'the archive unpacks to more than a hundred times its size: refused' 70
    before=$((now + ${size:-0}))
}
set -m
unpack & job=$!
set +m
quiet
beside far
while kill -0 "$job" 2> /dev/null; do
    check
    sleep 0.2
done
wait "$job" || {
    code=$?
    if [ "$doubt" = doubtful ] && [ "$code" != 68 ] && ! full "$new"; then
        echo 'what came from the address is no whole archive of its kind; the next run fetches it again' >&2
        rm -f "$archive"
    fi
    rm -rf "$new"
    exit "$code"
}
real=$(realpath "$new")
find "$new" -type l -print0 | while IFS= read -r -d '' link; do
    case "$(realpath -m "$link")" in
    "$real" | "$real"/*) ;;
    *) echo "a link in the archive leads out of it: ${link#"$new"/}" >&2; exit 67;;
    esac
done
placed
