# shellcheck shell=bash disable=SC2154 # `data`, `marker` and `digest` come from the script after this
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
clear_data() { # what another source put there; broken off, it is nobody's
    mkdir -p "${marker%/*}"
    printf 'nobody\n' > "$marker"
    rm -rf "$data"
    rm -f "${marker%.unpacked}".{digest,names,recent}
}
