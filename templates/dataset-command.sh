# shellcheck shell=bash # dataset-lib.sh comes before
# Arguments: data folder, marker, digest. Input: the user's command, which may hold a secret and so is in no
# process list. Runs it in the data folder, once; one that failed finds what it left.
data=$1 marker=$2 digest=$3 log=${2%.unpacked}.log
far() {
    tell "$(du -sb "$data" | cut -f 1)" 0 0 0 \
        "$(tail -c 400 "$log" | tr '\r\t' '\n ' | grep '[^ ]' | tail -n 1 | cut -c -72)"
}
if there; then cat > /dev/null; exit 0; fi
command=$(mktemp) # readable for nobody else
trap 'quiet; rm -f "$command"' EXIT
cat > "$command"
beside far
alone "$marker.lock" "$digest"
if there; then exit 0; fi
if ! says "$digest begun"; then
    if [ -f "$marker" ] || [ -f "${marker%.unpacked}.names" ]; then clear_data; fi
    printf '%s begun\n' "$digest" > "$marker"
fi
mkdir -p "$data"
cd "$data"
(umask 077 && : > "$log")
bash "$command" < /dev/null > "$log" 2>&1 8>&- || {
    code=$?
    tail -n 4 "$log" >&2
    echo "dataset.command ended with $code" >&2
    echo 'hint: correct dataset.command; it finds what this one left in the data folder' >&2
    exit 65
}
whole
