say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

NAMES=() READY=
declare -A PIDS=() RESTART=() RESTARTED=()

run() { # name, command: starts it in a process group of its own, its output in $RUN_DIR/name.log
  local name=$1
  shift
  if [[ -z ${PIDS[$name]:-} ]]; then
    NAMES+=("$name")
    : >"$RUN_DIR/$name.log"
  fi
  setsid "$@" >>"$RUN_DIR/$name.log" 2>&1 9>&- &
  PIDS[$name]=$!
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
  if ((${#NAMES[@]})); then
    say "stopping ${NAMES[*]}"
    signal_all TERM
    while any_alive && ((left-- > 0)); do sleep 0.2; done
    signal_all KILL
    @after_stop@
  fi
  exit "$status"
}

check_running() { # starts again what has ended by itself, RESTARTS times at most; ends the script otherwise
  local name words
  for name in "${NAMES[@]}"; do
    kill -0 "${PIDS[$name]}" 2>/dev/null && continue
    say "last lines of $RUN_DIR/$name.log:"
    tail -n 20 "$RUN_DIR/$name.log" >&2 || true
    if [[ -z $READY || -z ${RESTART[$name]:-} ]] || ((${RESTARTED[$name]:-0} >= RESTARTS)); then
      die "$name has ended, so the rest is stopped too"
    fi
    RESTARTED[$name]=$((${RESTARTED[$name]:-0} + 1))
    say "$name has ended; starting it again (${RESTARTED[$name]} of $RESTARTS)"
    kill -KILL -- "-${PIDS[$name]}" 2>/dev/null || true # what is left of its processes
    @before_restart@
    read -ra words <<<"${RESTART[$name]}"
    "${words[@]}"
  done
}

wait_ready() { # URL that answers once the weights are loaded
  local deadline=$((SECONDS + READY_SECONDS))
  # The answer alone counts here: the certificate may be for another name than this address.
  until curl --noproxy '*' --insecure -fsS -o /dev/null --max-time 5 "$1" 2>/dev/null; do
    check_running
    ((SECONDS < deadline)) || die "$1 gave no answer within $READY_SECONDS s; see the logs in $RUN_DIR"
    sleep 1
  done
  check_running
}

check_program() { # program, how to get it
  command -v "$1" >/dev/null || die "$1 is not installed here: $2"
}

check_number() { # name of a variable that is a whole number
  [[ ${!1} =~ ^(0|[1-9][0-9]{0,8})$ ]] || die "$1 is ${!1}; give a whole number"
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

check_access() { # who can reach the server, and with which key and certificate
  # The key goes into configuration files: characters of a bearer token (RFC 6750) only.
  [[ $API_KEY =~ ^[A-Za-z0-9._~+/=-]*$ ]] || die "API_KEY holds characters that no bearer token has"
  if [[ -n $TLS_CERT$TLS_KEY ]]; then
    [[ -r $TLS_CERT && -r $TLS_KEY ]] || die "set both TLS_CERT and TLS_KEY to files that can be read"
    [[ $TLS_CERT$TLS_KEY =~ ^[A-Za-z0-9/._-]+$ ]] || die "the paths of TLS_CERT and TLS_KEY may have letters, digits and ._-/ only"
  fi
  case $LISTEN in
    127.* | localhost | ::1) return ;;
  esac
  [[ -n $API_KEY ]] || say "warning: without API_KEY, whoever reaches port $PORT of $LISTEN may use the model"
}

reach() { # the address at which this machine finds what listens on $LISTEN
  local scheme=http
  [[ -z $TLS_CERT ]] || scheme=https
  if [[ $LISTEN == 0.0.0.0 ]]; then echo "$scheme://127.0.0.1:$PORT"; else echo "$scheme://$LISTEN:$PORT"; fi
}

check_gpus() { # how many this machine needs
  local found
  @count_gpus@
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
