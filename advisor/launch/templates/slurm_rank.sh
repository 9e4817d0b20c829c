# shellcheck disable=SC2016 # each task fills in its own rank
run "server-$server" srun "${step[@]}" bash -c '
  export @visible@=$0
  @rank@
' "$gpus" "${command[@]}"
