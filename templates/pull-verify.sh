# shellcheck shell=bash
# Input: records of two, length and path, each ended by NUL. Prints for each `sha256 size seconds path`,
# ended by NUL: the hash of the first `length` bytes, and what the file is after that. A file that is
# gone gives no record. A hash may take longer than the line may be silent: meanwhile it prints records of
# nothing, one for each `beat` seconds, which is the argument.
set -u
beat=${1:-30}
export LC_ALL=C
while IFS= read -r -d '' length && IFS= read -r -d '' path; do
  [ -f "$path" ] || continue
  hash='' some=''
  until IFS= read -r -t "$beat" -u 3 some || [ $? -le 128 ]; do
    hash+=$some # what came before the time was over does not come again
    printf '\0'
  done 3< <(head -c "$length" -- "$path" | sha256sum)
  hash+=$some
  find -L "$path" -ignore_readdir_race -maxdepth 0 -printf "${hash%% *} %s %T@ %p\0"
done
