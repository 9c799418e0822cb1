# shellcheck shell=bash disable=SC2154 # what is not set here is set by session-lib.sh, which comes before
# Arguments: the service's folder, the interpreter, modules to try (MODULE=RUN, spaces between),
# a config to write or nothing, the run's slug, then the service's own arguments; @PORT@ is its port.
# Prints the port and the token. Exit 3: none of the modules is there. Exit 4: it did not come up.
dir=$1
python=$2
modules=$3
config=$4
slug=$5
shift 5
umask 077

# listens PID PORT: whether that very process accepts connections there, on the loopback.
listens() {
  local address inode
  printf -v address '0100007F:%04X' "$2"
  inode=$(awk -v at="$address" '$2 == at && $4 == "0A" { print $10; exit }' /proc/net/tcp)
  [[ -n $inode && $inode != 0 ]] || return 1
  find "/proc/$1/fd" -lname "socket:\[$inode\]" 2>/dev/null | grep -q .
}

# pick: print a module to run that the environment has.
pick() {
  "$python" -c '
import importlib.util, sys
for pair in sys.argv[1].split():
    name, _, run = pair.partition("=")
    if importlib.util.find_spec(name):
        print(run)
        break
' "$modules"
}

# attempt MODULE ARGUMENT…: start it on a port that is free now; fail when it ends or never listens.
attempt() {
  local port left=600
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])') || return 1
  CLOUDTRAIN_SERVICE=$dir CLOUDTRAIN_RUN=$slug JUPYTER_CONFIG_DIR=$dir JUPYTER_DATA_DIR=$dir/data \
    JUPYTER_RUNTIME_DIR=$dir/runtime PATH="$(dirname "$python"):$PATH" \
    setsid nohup "$python" -m "${@//@PORT@/$port}" </dev/null >"$dir/log" 2>&1 9>&- &
  local started=$!
  remember "$dir/process" "$started"
  until listens "$started" "$port"; do
    if ! alive "$dir/process" || ((left-- == 0)); then
      kill -KILL "$started" 2>/dev/null
      return 1
    fi
    pause 0.1
  done
  save "$dir/port" "$port"
}

main() {
  mkdir -p "$dir" && chmod 700 "$dir" || exit 1
  exec 9>"$dir/lock"
  command -v flock >/dev/null && flock -w 90 9
  if ! alive "$dir/process" || [[ ! -s $dir/port ]]; then
    local module
    module=$(pick)
    [[ -n $module ]] || exit 3
    if [[ -n $config ]]; then
      printf '%s' "$config" >"$dir/config.py"
      [[ -s $dir/token ]] || save "$dir/token" "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
    fi
    alive "$dir/process" && kill -KILL "$pid"
    rm -f "$dir/port"
    # Somebody else may take the port between the question and the answer.
    attempt "$module" "$@" || attempt "$module" "$@" || {
      tail -n 15 "$dir/log" >&2
      exit 4
    }
  fi
  cat "$dir/port"
  cat "$dir/token" 2>/dev/null || :
}

main "$@"
