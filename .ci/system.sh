#!/bin/bash
# The system packages that the sandbox, the tests and the checks use: installed when
# root and apt are there, named otherwise. Nothing happens when all of them are.
set -euo pipefail

# program:package. sshd lies outside an ordinary user's PATH.
NEEDED=(
  sshd:openssh-server ssh:openssh-client screen:screen rsync:rsync git:git
  curl:curl shellcheck:shellcheck bsdtar:libarchive-tools
)
# Machines of kind nspawn are for root alone; without it their tests are left out.
if [ "$(id -u)" = 0 ]; then
  NEEDED+=(
    debootstrap:debootstrap systemd-nspawn:systemd-container iptables:iptables ip:iproute2
  )
fi
PATH=$PATH:/usr/sbin:/sbin

missing=()
for pair in "${NEEDED[@]}"; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
[ "${#missing[@]}" -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "error: missing: ${missing[*]} (Debian's names); install them with this system's package manager" >&2
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  echo "error: missing: ${missing[*]}" >&2
  echo "hint: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null
