# shellcheck shell=bash # dataset-lib.sh comes before
# Arguments: data folder, marker, digest, command. Runs the user's command in the data folder, once;
# one that failed finds what it left.
data=$1 marker=$2 digest=$3 command=$4
if there; then exit 0; fi
if ! says "$digest begun"; then
    if [ -f "$marker" ] || [ -f "${marker%.unpacked}.names" ]; then clear_data; fi
    mkdir -p "${marker%/*}"
    printf '%s begun\n' "$digest" > "$marker"
fi
mkdir -p "$data"
cd "$data"
bash -c "$command" < /dev/null 1>&2 || { echo "dataset.command ended with $?" >&2; exit 65; }
whole
