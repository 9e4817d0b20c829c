READY=1
while any_alive; do
  wait -n "${PIDS[@]}" || true # until one of them ends, or Ctrl-C
  check_running
done
