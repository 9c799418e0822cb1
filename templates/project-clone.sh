#!/bin/bash
# Clones or updates the project on the machine. Arguments: folder, address, ref (may be empty).
set -eu
folder=$1 address=$2 ref=${3:-HEAD}
export GIT_TERMINAL_PROMPT=0
if [ ! -d "$folder/.git" ]; then
  rm -rf "$folder.part"
  git clone -q "$address" "$folder.part"
  rm -rf "$folder"
  mkdir -p "$(dirname "$folder")"
  mv "$folder.part" "$folder"
fi
cd "$folder"
# A branch, a tag and HEAD can be asked for by name; a commit often only after everything came.
if git fetch -q --tags "$address" "$ref"; then
  target=FETCH_HEAD
else
  git fetch -q --tags "$address" '+refs/heads/*:refs/remotes/origin/*'
  target="$ref^{commit}"
fi
git -c advice.detachedHead=false checkout -q --force --detach "$target"
git rev-parse --short HEAD
