# What kind of machine is this? Asks only, changes nothing, and answers in `key=value` lines.
# Something that is absent answers with an empty value; nothing here may fail or wait long.
set -u
export LC_ALL=C
PATH="$PATH:/usr/sbin:/sbin:/usr/lib/wsl/lib"

say() { printf '%s=%s\n' "$1" "${2-}"; }
have() { command -v "$1" 2>/dev/null || true; }
first() {
  local path
  for path in "$@"; do
    if [ -n "$path" ] && [ -x "$path" ]; then
      printf '%s' "$path"
      return
    fi
  done
}
holds() { if "$@" >/dev/null 2>&1; then echo 1; else echo 0; fi; }
is_container() {
  # systemd says what it was booted in; under cgroup v2 that is all a pod or an LXC shows.
  case "$(cat /run/systemd/container 2>/dev/null || tr '\0' '\n' </proc/1/environ 2>/dev/null | sed -n 's/^container=//p')" in
    '' | systemd-nspawn | wsl) ;;
    *) return 0 ;;
  esac
  [ -e /.dockerenv ] || [ -e /run/.containerenv ] || [ -d /var/run/secrets/kubernetes.io ] ||
    grep -qE 'docker|kubepods|containerd|lxc' /proc/1/cgroup
}
cloud_init_runs() { command -v cloud-init && [ -d /run/cloud-init ]; }
may_sudo() { [ "$(id -u)" != 0 ] && command -v sudo && timeout 10 sudo -n true; }
# What it says beside its rows is marked, so that nothing of it is taken for one.
smi() {
  { timeout 40 nvidia-smi "--query-gpu=$1" --format=csv,noheader,nounits 2>&1 >&3 | sed 's/^/! /'; } 3>&1
}
# name, memory, driver…; a value that the GPU does not have is in brackets.
rows() {
  printf '%s\n' "$answer" | grep -E '^[^!,][^,]*, *([0-9]+|\[[^],]*\]), *([0-9][0-9.]*|\[[^],]*\]) *(,.*)?$'
}

pci_gpus() {
  local device class
  for device in /sys/bus/pci/devices/*; do
    [ "$(cat "$device/vendor" 2>/dev/null)" = 0x10de ] || continue
    class=$(cat "$device/class")
    case "$class" in
      0x0300* | 0x0302*) say pci "$(sed 's/^0x//' "$device/device")" ;;
    esac
  done
}

nvidia() {
  local answer found
  if [ -z "$(have nvidia-smi)" ]; then
    say nvidia_smi absent
    return
  fi
  # By its rows, not by its exit code: one that warns (14, a damaged infoROM) has a driver that works.
  # Drivers before 2021 do not know compute_cap and refuse the whole question for it.
  if answer=$(smi name,memory.total,driver_version,compute_cap) && found=$(rows) ||
    answer=$(smi name,memory.total,driver_version) && found=$(rows); then
    say nvidia_smi ok
    printf '%s\n' "$found" | sed 's/^/gpu=/'
  else
    say nvidia_smi failed
    say nvidia_smi_error "$(printf '%s\n' "$answer" | sed -n 's/^! //; /./{p;q;}')"
  fi
}

say facts 1
# shellcheck disable=SC1091
say os_id "$(. /etc/os-release 2>/dev/null && printf '%s' "${ID-}")"
# shellcheck disable=SC1091
say os_version "$(. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_ID-}")"
say kernel "$(uname -r)"
say arch "$(uname -m)"
say cpus "$(nproc)"
say memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
say shm_kib "$(df -Pk /dev/shm 2>/dev/null | sed -n '2p' | tr -s ' ' | cut -d' ' -f2)"
say disk_free_kib "$(df -Pk "$HOME" 2>/dev/null | sed -n '2p' | tr -s ' ' | cut -d' ' -f4)"
say user "$(id -un 2>/dev/null || id -u)"
say home "$HOME"
say root "$(holds test "$(id -u)" = 0)"
say sudo "$(holds may_sudo)"
say apt "$(holds command -v apt-get)"
say systemd "$(holds test -d /run/systemd/system)"
say cloud_init "$(holds cloud_init_runs)"
say container "$(holds is_container)"
say wsl "$(holds grep -qi microsoft /proc/version)"
for program in screen rsync git curl python3 docker; do
  say "$program" "$(have "$program")"
done
say python3_version "$(python3 -V 2>/dev/null | cut -d' ' -f2)"
say uv "$(first "$(have uv)" "$HOME/.cloudtrain/bin/uv" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv")"
ours=$HOME/.cloudtrain/miniconda3
[ -e "$ours/.whole" ] || ours= # an installation that was killed leaves a conda that does nothing
say conda "$(first "$(have conda)" "${CONDA_EXE-}" "${ours:+$ours/bin/conda}" \
  "$HOME/miniconda3/bin/conda" "$HOME/miniforge3/bin/conda" /opt/conda/bin/conda /opt/miniconda3/bin/conda)"
baked=$HOME/.cloudtrain/baked/env
say baked "$(if [ -x "$baked/bin/python" ]; then printf '%s' "$baked"; fi)"
pci_gpus
nvidia
say end 1
