# shellcheck shell=bash # told-lib.sh comes before
# Clones or updates the project on the machine, and says how far it is. Arguments: folder, address, ref (may be
# empty). The last line is the commit.
set -eu -o pipefail
folder=$1 address=$2 ref=${3:-HEAD}
export GIT_TERMINAL_PROMPT=0

# What it would tidy up in the background would hold the lock as well.
git() { command git -c gc.autoDetach=false -c maintenance.autoDetach=false "$@"; }

# shown: pass on what git says of its progress, to standard output and with times; all else is an error.
shown() {
  local part line
  while IFS= read -r -d $'\r' part || [ -n "$part" ]; do
    while IFS= read -r line; do
      if [[ $line =~ ^(remote:\ )?(.*):\ +[0-9]+%\ \(([0-9]+)/([0-9]+)\) ]]; then
        printf '@at\t%s\t%s\t0\t0\t%s\n' "${BASH_REMATCH[3]}" "${BASH_REMATCH[4]}" "${BASH_REMATCH[2]}"
      elif [ -n "$line" ]; then
        printf '%s\n' "$line" >&2
      fi
    done <<<"$part"
    part=''
  done
}

# Hashed: an address may hold a right.
alone "$folder.lock" "$(printf '%s\0' "$address" "$ref" | sha256sum)"
if [ ! -d "$folder/.git" ]; then
  rm -rf "$folder.part"
  git clone --progress "$address" "$folder.part" 2>&1 | shown
  rm -rf "$folder"
  mkdir -p "$(dirname "$folder")"
  mv "$folder.part" "$folder"
fi
cd "$folder"
# By force: a tag may have been moved there, and nobody's own work is here.
# A branch, a tag and HEAD can be asked for by name; a commit often only after everything came.
if git fetch --force --progress --tags "$address" "$ref" 2>&1 | shown; then
  target=FETCH_HEAD
else
  git fetch --force --progress --tags "$address" '+refs/heads/*:refs/remotes/origin/*' 2>&1 | shown
  target="$ref^{commit}"
fi
git -c advice.detachedHead=false checkout -q --force --detach "$target"
git rev-parse --short HEAD
