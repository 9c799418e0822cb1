# shellcheck shell=bash disable=SC2154 # what is not set here is set by session-lib.sh, which comes before
# Arguments: the run's root, then patterns of a script's outputs in the project folder.
# Prints one `name<TAB>value` a line about the newest session; the log's end comes last.
shopt -s globstar nullglob

# saved DIR PATTERN…: print the checkpoints, each after its age in seconds since 1970.
saved() {
  local dir=$1 file IFS=
  shift
  [[ -d $run_dir ]] && find "$run_dir" -ignore_readdir_race -type f \
    \( -name '*.pt' -o -name '*.pth' -o -name '*.pth.tar' -o -name '*.ckpt' -o -name '*.safetensors' \) -printf '%T@\t%p\n'
  cd "$root/project" 2>/dev/null || return 0
  for pattern in "$@"; do
    # shellcheck disable=SC2086 # a pattern is meant to be expanded
    for file in $pattern; do
      [[ -f $file && $file -nt $dir/started ]] && find "$PWD/$file" -ignore_readdir_race -printf '%T@\t%p\n'
    done
  done
}

main() {
  root=$1
  shift
  local number dir file place
  number=$(numbers "$root" | tail -n 1)
  [[ -n $number ]] || exit 0
  dir=$root/sessions/$number
  { read -r run_dir <"$dir/run_dir"; } 2>/dev/null || run_dir=$root/runs/$number
  printf 'session\t%s\n' "$(describe "$dir")"
  printf 'now\t%s\n' "$(date +%s)"
  [[ -e $dir/supervisor ]] && printf 'begun\t%s\n' "$(stat -c %Y "$dir/supervisor")"
  saved "$dir" "$@" | sort -n | tail -n 1 | sed 's/^/checkpoint\t/'
  for file in "$run_dir"/args.yaml "$run_dir"/opt.yaml; do
    sed -n 's/^epochs: */epochs\t/p' "$file" 2>/dev/null
  done
  file=$run_dir/results.csv
  { head -n 1 "$file" && tail -n +2 "$file" | tail -n 3; } 2>/dev/null | sed 's/^/row\t/'
  for file in secured reason; do
    [[ -s $dir/$file ]] && printf '%s\t%s\n' "$file" "$(tr -d '\n' <"$dir/$file")"
  done
  guard_said "$root"
  printf 'log\t\n'
  tail -c 16384 "$dir/train.log" 2>/dev/null
}

main "$@"
