# shellcheck shell=bash disable=SC2154 # `data`, `marker`, `digest` and `new` come from the script after this
# told-lib.sh comes before.
# Whose data/ is: the marker holds the digest of the source that lies there whole, `<digest> begun` while
# a command fills it, and anything else when it is nobody's. A push file by file removes it.
set -eu
umask 022
says() { [ -f "$marker" ] && [ "$(cat "$marker")" = "$1" ]; }
there() { # a push by an older cloudtrain left both records
    says "$digest" && [ -d "$data" ] && [ ! -f "${marker%.unpacked}.digest" ]
}
whole() { printf '%s\n' "$digest" > "$marker"; }
sums() { (cd "$1" && xargs -0 -r sha256sum -z -- 2> /dev/null) < "$marker.files" | sort -z; }
# placed: what has come whole beside the data becomes it. Where it came to verify what lies there, only what
# is otherwise there is replaced, and counted; data.yaml may be ours by now, and what nobody sent stays.
placed() {
    local path target differ=0
    if ! there; then clear_data; mv "$new" "$data"; whole; return; fi
    (cd "$new" && find . \( -type f -o -type l \) ! -path ./data.yaml -printf '%P\0') > "$marker.files"
    while IFS= read -r -d '' path; do
        path=${path:66} differ=$((differ + 1))
        target=$data/$path
        if [ -d "$target" ] && [ ! -L "$target" ]; then rm -rf -- "$target"; fi
        mkdir -p -- "${target%/*}"
        mv -fT -- "$new/$path" "$target"
    done < <(comm -z -23 <(sums "$new") <(sums "$data"))
    rm -rf -- "$new" "$marker.files"
    differs "$differ"
}
clear_data() { # what another source put there; broken off, it is nobody's
    mkdir -p "${marker%/*}"
    printf 'nobody\n' > "$marker"
    rm -rf "$data"
    rm -f "${marker%.unpacked}".{digest,names,recent}
}
