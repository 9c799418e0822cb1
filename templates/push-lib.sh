# shellcheck shell=bash
# Questions about pushed folders. `same` and `stats` are for the scripts that come after.
set -u
export LC_ALL=C
umask 022
stats() { # folder, names
    [ -d "$1" ] && [ -f "$2" ] || return 0
    (cd "$1" && sed -z -n 's/^f//p' "$2" | xargs -0 -r stat --printf='%s %Y %n\0' -- 2>/dev/null)
}
same() { # folder, manifest, digest, stat digest
    [ -f "$2.digest" ] && [ "$(cat "$2.digest")" = "$3" ] && [ -d "$1" ] || return 1
    set -- "$(stats "$1" "$2.names" | sha256sum)" "$4"
    [ "${1%% *}" = "$2" ]
}
arrived() { # folder, names: how many files of those are there, their bytes, and the hash of their stat
    stats "$1" "$2" > "$2.stat" || :
    printf '%s %s\n' "$(tr '\n\0' ' \n' < "$2.stat" | awk '{ n++; b += $1 } END { printf "%d %.0f", n, b }')" \
        "$(sha256sum < "$2.stat")"
    rm -f "$2.stat"
}
