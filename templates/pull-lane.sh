# shellcheck shell=bash
# Input: records of three, offset, length and path, each ended by NUL. Prints exactly `length` bytes for
# each; what the file has not (any more) is made up with zeros, and shows by its hash.
set -u
while IFS= read -r -d '' offset && IFS= read -r -d '' length && IFS= read -r -d '' path; do
  {
    dd if="$path" bs=256K iflag=skip_bytes,count_bytes skip="$offset" count="$length" status=none 2> /dev/null
    head -c "$length" /dev/zero
  } | head -c "$length"
done
