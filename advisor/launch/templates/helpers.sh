say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

NAMES=() PIDS=()

run() { # name, command: starts it in a process group of its own, its output in $RUN_DIR/name.log
  local name=$1
  shift
  setsid "$@" >"$RUN_DIR/$name.log" 2>&1 9>&- &
  NAMES+=("$name") PIDS+=("$!")
  say "started $name, log $RUN_DIR/$name.log"
}

any_alive() {
  local pid
  for pid in "${PIDS[@]}"; do
    if kill -0 "$pid" 2>/dev/null || kill -0 -- "-$pid" 2>/dev/null; then return 0; fi
  done
  return 1
}

signal_all() { # signal: to every process group that was started
  local pid
  for pid in "${PIDS[@]}"; do kill "-$1" "$pid" "-$pid" 2>/dev/null || true; done
}

stop_all() { # runs on every exit: nothing that was started stays behind
  local status=$? left=$((STOP_SECONDS * 5))
  trap - EXIT
  trap '' INT TERM HUP
  if ((${#PIDS[@]})); then
    say "stopping ${NAMES[*]}"
    signal_all TERM
    while any_alive && ((left-- > 0)); do sleep 0.2; done
    signal_all KILL
    @after_stop@
  fi
  exit "$status"
}

check_running() { # ends the script when something it started has ended
  local i
  for i in "${!PIDS[@]}"; do
    kill -0 "${PIDS[i]}" 2>/dev/null && continue
    say "last lines of $RUN_DIR/${NAMES[i]}.log:"
    tail -n 20 "$RUN_DIR/${NAMES[i]}.log" >&2 || true
    die "${NAMES[i]} has ended, so the rest is stopped too"
  done
}

wait_ready() { # URL that answers once the weights are loaded
  local deadline=$((SECONDS + READY_SECONDS))
  until curl --noproxy '*' -fsS -o /dev/null --max-time 5 "$1" 2>/dev/null; do
    check_running
    ((SECONDS < deadline)) || die "$1 gave no answer within $READY_SECONDS s; see the logs in $RUN_DIR"
    sleep 1
  done
  check_running
}

check_program() { # program, how to get it
  command -v "$1" >/dev/null || die "$1 is not installed here: $2"
}

check_port() {
  if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
    die "port $1 is in use; stop what listens there, or start with another PORT"
  fi
}

check_address() { # address, port: as they go into configuration files
  [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9.:_-]*$ ]] || die "LISTEN is $1, which is no address"
  [[ $2 =~ ^[1-9][0-9]*$ && $2 -le 65000 ]] || die "PORT is $2; give 1 to 65000"
}

reach() { # the address at which this machine finds what listens on $LISTEN
  if [[ $LISTEN == 0.0.0.0 ]]; then echo 127.0.0.1; else echo "$LISTEN"; fi
}

check_gpus() { # how many this machine needs
  check_program nvidia-smi "it comes with the NVIDIA driver"
  local found
  found=$(nvidia-smi -L | grep -c '^GPU') || true
  ((found >= $1)) || die "this machine shows $found GPUs and the plan needs $1"
}

check_model() { # a folder that is there, or a model of the hub that this user may read
  case $MODEL in
    /* | ./* | ../* | "~"*)
      [[ -e $MODEL ]] || die "there is no folder $MODEL; set MODEL"
      return
      ;;
  esac
  local cache=${HF_HOME:-$HOME/.cache/huggingface} token code
  [[ -e $MODEL || -n ${HF_HUB_OFFLINE:-} || -d $cache/hub/models--${MODEL//\//--} ]] && return
  [[ $MODEL =~ ^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+$ ]] || die "MODEL is neither a folder here nor a model id: $MODEL"
  token=${HF_TOKEN:-$(cat "$cache/token" 2>/dev/null || true)}
  # The token goes through standard input, so that no process list shows it.
  code=$(printf '%s' "${token:+header = \"Authorization: Bearer $token\"}" |
    curl -sL -o /dev/null --max-time 10 -w '%{http_code}' -K - \
      "${HF_ENDPOINT:-https://huggingface.co}/$MODEL/resolve/main/config.json") || return 0
  case $code in
    401 | 403) die "$MODEL is gated or does not exist: put a token that may read it into HF_TOKEN" ;;
  esac
}
