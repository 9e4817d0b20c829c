umask 077 # logs and configuration may hold a key
check_number READY_SECONDS
check_number STOP_SECONDS
check_number RESTARTS
mkdir -p "$RUN_DIR"
exec 9>>"$RUN_DIR/lock" # held while this script runs
case ${1:-start} in
  start)
    flock -n 9 || {
      say "already running; \`$0 stop\` ends it"
      exit 0
    }
    echo $$ >"$RUN_DIR/pid"
    ;;
  stop)
    if flock -n 9; then
      say "nothing is running"
      exit 0
    fi
    kill -TERM "$(cat "$RUN_DIR/pid")"
    flock -w $((STOP_SECONDS + 10)) 9 || die "it does not stop; see process $(cat "$RUN_DIR/pid")"
    say "stopped"
    exit 0
    ;;
  *) die "usage: $0 [stop]" ;;
esac
