# shellcheck shell=bash
# Changes the host key of this machine's sshd. Arguments:
#   prepare FILE OLD WORKS PINNED...   make the next key beside FILE; print its public half
#   switch FILE OLD NEW RELOAD         put it in FILE's place, tell sshd
# Keys are "kind base64". Both may be killed anywhere and run again. Exit 77: not possible here.
# A machine whose sshd is not the system's says so: CLOUDTRAIN_SSHD_KEY is its FILE then, and
# CLOUDTRAIN_SSHD_RELOAD its RELOAD, which always works.

set -euo pipefail
verb=$1 file=${CLOUDTRAIN_SSHD_KEY:-$2} old=$3
shift 3
next=$file.next

as_root=()
if [[ ! -w ${file%/*} ]]; then
  timeout 10 sudo -n true 2>/dev/null || exit 77
  as_root=(sudo -n)
fi

root() { "${as_root[@]}" "$@"; }

# public FILE: print the public half of a private key. Never asks for a passphrase.
public() { root ssh-keygen -y -P '' -f "$1" 2>/dev/null | cut -d ' ' -f 1,2; }

# A script that was killed leaves the program it called: that ends before the next script begins.
if [[ -r ${file%/*} ]] && command -v flock >/dev/null; then
  exec 9<"${file%/*}"
  flock -w 30 9 || true
fi

# The machine's sshd may read another file than FILE; then it is not ours to touch.
current=$(public "$file") || exit 77

prepare() {
  local works=$1 pin
  shift
  [[ -n ${CLOUDTRAIN_SSHD_RELOAD:-} ]] || root bash -c "$works" || exit 77
  if [[ $current != "$old" ]]; then
    for pin; do
      # It was put in place earlier, and sshd was not told.
      [[ $pin == "$current" ]] && printf '%s\n' "$current" && exit
    done
    exit 77
  fi
  if ! public "$next" >/dev/null; then
    root rm -f "$next" "$next.made" "$next.made.pub"
    root ssh-keygen -q -t ed25519 -N '' -C cloudtrain -f "$next.made"
    root rm -f "$next.made.pub"
    root sync "$next.made"
    root mv -f "$next.made" "$next"
  fi
  public "$next"
}

switch() {
  local new=$1 reload=${CLOUDTRAIN_SSHD_RELOAD:-$2}
  if [[ $current == "$old" ]]; then
    [[ $(public "$next") == "$new" ]] || exit 77
    # sshd would offer what FILE.pub says, and could not sign for it.
    root rm -f "$file.pub"
    root mv -f "$next" "$file"
  elif [[ $current != "$new" ]]; then
    exit 77
  fi
  printf '%s\n' "$new" | root tee "$file.pub.made" >/dev/null
  root chmod 644 "$file.pub.made"
  root mv -f "$file.pub.made" "$file.pub"
  root sync "$file" "${file%/*}"
  root bash -c "$reload" >&2 9<&-
}

"$verb" "$@"
