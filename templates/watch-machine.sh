# shellcheck shell=bash
# Arguments: the inode and the byte up to which results.csv was read, then what session-status.sh is
# given, whose text comes after this. Prints what is used of the machine, and only the new rows.
inode=$1 offset=$2
shift 2

readings() {
  local root=$1 run_dir number file now size
  awk '/^MemTotal|^MemAvailable/ {print $2}' /proc/meminfo | paste -sd ' ' | sed 's/^/memory\t/'
  df -Pk "$root" 2>/dev/null | awk 'NR == 2 {print "disk\t" $2, $4}'
  printf 'load\t%s %s\n' "$(cut -d' ' -f1 /proc/loadavg)" "$(nproc)"
  command -v nvidia-smi >/dev/null &&
    timeout 5 nvidia-smi --query-gpu=utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw,name \
      --format=csv,noheader,nounits 2>/dev/null | sed 's/^/gpu\t/'
  number=$(cd "$root/sessions" 2>/dev/null && printf '%s\n' [0-9]* | sort -n | tail -n 1)
  { read -r run_dir <"$root/sessions/$number/run_dir"; } 2>/dev/null || return
  file=$run_dir/results.csv
  read -r now size wrote < <(stat -c '%i %s %Y' "$file" 2>/dev/null) || return
  # Resuming makes it a new file: then all of it is told again.
  [[ $now == "$inode" && $size -ge $offset ]] || offset=0
  printf 'results\t%s %s %s\n' "$now" "$offset" "$wrote"
  ((offset == 0)) || head -n 1 "$file" | sed 's/^/header\t/'
  tail -c "+$((offset + 1))" "$file" | sed 's/^/new\t/'
}

readings "$1"
printf 'status\t\n'
