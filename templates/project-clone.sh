# shellcheck shell=bash # told-lib.sh comes before
# Clones or updates the project on the machine, and says how far it is. Arguments: folder, address, ref (may be
# empty). What the machine wrote into the folder stays: of that it says `stays COUNT` where a push was before, and
# `aside PATH` of what was in the way. The last line is the commit.
set -eu -o pipefail
folder=$1 address=$2 ref=${3:-HEAD}
manifest=${folder%/*}/manifests/${folder##*/}
export GIT_TERMINAL_PROMPT=0 LC_ALL=C

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

# cloned: whether what lies there is a clone, and no push came after it; clones of before left no record.
cloned() {
  [ -d "$folder/.git" ] || return 1
  [ ! -e "$manifest.names" ] || cmp -s "$manifest.names" "$manifest.cloned"
}

# aside PATH: keep what is in the way under another name.
aside() {
  local kept=$1.cloudtrain-kept number=1
  while [ -e "$kept" ] || [ -L "$kept" ]; do number=$((number + 1)) kept=$1.cloudtrain-kept-$number; done
  mv -T -- "$1" "$kept"
  printf 'aside %q\n' "$kept"
}

names() { sed -z -n 's/^[fl]//p' "$1" | sort -zu; }

# leave: remove what pushes put there, or an earlier clone, and nothing else.
leave() {
  if [ -f "$manifest.names" ]; then
    names "$manifest.names" | xargs -0 -r rm -f -- 2> /dev/null || : # what is a folder now is the machine's own
    sed -z -n -E 's/^d//p; s/^[fl](.*)\/[^\/]*$/\1/p' "$manifest.names" | sort -zur |
      xargs -0 -r rmdir -p --ignore-fail-on-non-empty -- 2> /dev/null || :
  fi
  if [ -e .git ] && [ -e "$manifest.cloned" ]; then rm -rf .git; fi
  if [ -e .git ]; then aside .git; fi
  printf 'stays %s\n' "$(find . ! -type d -printf x | wc -c)"
  rm -rf "$manifest".{digest,names,recent,parts,cloned}
}

# spare COMMIT: move aside what is in its way and was neither cloned nor pushed; git would overwrite it.
spare() {
  local path at
  git ls-tree -r -z --name-only "$1" | sort -zu |
    comm -z -13 <({ git ls-files -z; names "$manifest.names"; } | sort -zu) - |
    while IFS= read -r -d '' path; do
      at=$path
      while :; do
        if { [ "$at" = "$path" ] || [ ! -d "$at" ]; } && { [ -e "$at" ] || [ -L "$at" ]; } && own "$at"; then
          aside "$at"
        fi
        case $at in */*) at=${at%/*} ;; *) break ;; esac
      done
    done
}

# own PATH: whether the machine made it, or something below it.
own() { [ -n "$(git --literal-pathspecs ls-files --others -- "$1" | head -c 1)" ]; }

# Hashed: an address may hold a right.
alone "$folder.lock" "$(printf '%s\0' "$address" "$ref" | sha256sum)"
mkdir -p "${manifest%/*}"
if ! cloned; then
  rm -rf "$folder.part"
  git clone --no-checkout --progress "$address" "$folder.part" 2>&1 | shown
  if [ -d "$folder" ]; then (cd "$folder" && leave); fi
  mkdir -p "$folder"
  mv -T "$folder.part/.git" "$folder/.git"
  rm -rf "$folder.part"
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
target=$(git rev-parse "$target^{commit}")
touch "$manifest.names"
spare "$target"
# Recorded as a push's are: the next push removes what it does not have itself. Before anything comes: should this
# break, what came is known for ours.
git ls-tree -r -z "$target" | sed -z -n -E 's/^120000 [^\t]*\t/l/p; s/^100[0-9]* [^\t]*\t/f/p' > "$manifest.new"
sort -zu "$manifest.names" "$manifest.new" > "$manifest.cloned"
cp "$manifest.cloned" "$manifest.names"
rm -f .git/index.lock # of one that broke; there is no other beside this
git -c advice.detachedHead=false checkout -q --progress --force --detach "$target" 2>&1 | shown
# To a push none of it counts as sent, whatever its size and time: no file has -1 nanoseconds.
sed -z -n 's/^f/recent -1 0 /p' "$manifest.new" > "$manifest.recent"
find .git \( -type d -printf 'd%p\0' -o -printf 'f%p\0' \) >> "$manifest.new"
rm -f "$manifest.digest"
cp "$manifest.new" "$manifest.cloned"
mv "$manifest.new" "$manifest.names"
git rev-parse --short HEAD
