# shellcheck shell=bash
# Arguments: archive, data folder, marker, digest. Prints the data.yaml found: its path, NUL, its text.
set -eu
export LC_ALL=C
umask 022
archive=$1 data=$2 marker=$3 digest=$4
pushed=${marker%.unpacked}.digest # of a dataset that was pushed file by file to the same place since
if [ ! -f "$marker" ] || [ "$(cat "$marker")" != "$digest" ] || [ ! -d "$data" ] || [ -f "$pushed" ]; then
    new="$data.unpacking"
    rm -rf "$new"; mkdir -p "$new"
    case "${archive,,}" in
    *.zip)
        if command -v bsdtar > /dev/null; then bsdtar -xf "$archive" -C "$new" --no-same-owner
        elif command -v unzip > /dev/null; then unzip -q -o "$archive" -d "$new"
        else python3 -m zipfile -e "$archive" "$new"
        fi;;
    *) tar -xf "$archive" -C "$new" --no-same-owner;;
    esac
    real=$(realpath "$new")
    find "$new" -type l -print0 | while IFS= read -r -d '' link; do
        case "$(realpath -m "$link")" in
        "$real"/*) ;;
        *) echo "a link in the archive leads out of it: ${link#"$new"/}" >&2; exit 67;;
        esac
    done
    rm -rf "$data"
    rm -f "$pushed"
    mv "$new" "$data"
    printf '%s\n' "$digest" > "$marker"
fi
cd "$data"
find . -maxdepth 3 \( -name data.yaml -o -name dataset.yaml \) -printf '%d %P\0' | sort -zn | head -zn 1 |
    while IFS= read -r -d '' found; do printf '%s\0' "${found#* }"; cat -- "${found#* }"; done
