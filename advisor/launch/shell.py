"""The parts that the bash and docker scripts share: variables, early checks, start, wait until ready, clean stop."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from advisor.launch import words as c
from advisor.launch.words import Command, Flag, Variable, Word, quoted, words

# How the command's variables are called inside `start_server`.
LOCAL: dict[Variable, Word] = {
    c.HOST: Variable("listen"),
    c.PORT: Variable("port"),
    c.NODE_RANK: Variable("rank"),
    c.START_RANK: Variable("start_rank"),
    c.HEAD_ADDRESS: Variable("head"),
    c.DIST_PORT: Variable("dist_port"),
    c.DIST_ADDRESS: c.Raw('"$head:$dist_port"'),
    c.CONFIG: c.Raw('"$RUN_DIR/trtllm.yaml"'),
}

HELPERS = r"""
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
    @AFTER_STOP@
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
""".strip("\n")

LOCK = r"""
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
""".strip("\n")

TRAPS = r"""
trap stop_all EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
""".strip("\n")

FOREVER = r"""
while any_alive; do
  wait -n "${PIDS[@]}" || true # until one of them ends, or Ctrl-C
  check_running
done
""".strip("\n")

NGINX = r"""
start_balancer() { # host:port of each server
  local server upstream=""
  for server in "$@"; do upstream+="    server $server;"$'\n'; done
  cat >"$RUN_DIR/nginx.conf" <<EOF
daemon off;
pid nginx.pid;
error_log stderr;
worker_processes auto;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path tmp-body;
  proxy_temp_path tmp-proxy;
  fastcgi_temp_path tmp-fastcgi;
  uwsgi_temp_path tmp-uwsgi;
  scgi_temp_path tmp-scgi;
  upstream servers {
    least_conn; # to the server with the fewest requests in flight
$upstream  }
  server {
    listen $LISTEN:$PORT;
    client_max_body_size 100m;
    location / {
      proxy_pass http://servers;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off; # tokens are passed on as they come
      proxy_read_timeout 3600s;
    }
  }
}
EOF
  @RUN_NGINX@
}
""".strip("\n")

ROUTER = r"""
start_balancer() { # host:port of each server
  # cache_aware sends requests that share a prefix to the same server.
  @RUN_ROUTER@ --host "$LISTEN" --port "$PORT" \
    --policy cache_aware --worker-urls "${@/#/http://}"
}
""".strip("\n")


def setting(name: str, default: Word, why: str = "", *, width: int = 34) -> str:
    """`NAME=${NAME:-default}  # why`; the default is quoted."""
    text = f"{name}=${{{name}:-{'' if default == '' else quoted(default)}}}"
    return f"{text:<{width}} # {why}" if why else text


def required(name: str, what: str) -> str:
    """A variable that must be set, with the sentence that says so."""
    return f"{name}=${{{name}:-}}\n[[ -n ${name} ]] || {{\n  echo {quoted(f'error: set {name} to {what}')} >&2\n  exit 1\n}}"


def array(name: str, command: Command, *, indent: str = "  ") -> list[str]:
    """The command as a bash array, a flag a line, each unusual one with its reason."""
    lines = [f"{indent}local {name}=("]
    lines.append(f"{indent}  {' '.join(map(quoted, command.program))}")
    lines += [_flag_line(flag, indent + "  ") for flag in command.flags]
    return [*lines, f"{indent})"]


def _flag_line(flag: Flag, indent: str) -> str:
    text = indent + " ".join(quoted(word) for word in words(flag))
    return f"{text:<46} # {flag.why}" if flag.why else text


def more(name: str, flags: Sequence[Flag], *, indent: str = "  ") -> list[str]:
    """Flags added on the nodes that are not the head."""
    if not flags:
        return []
    text = " ".join(quoted(word) for flag in flags for word in words(flag))
    why = next((flag.why for flag in flags if flag.why), "")
    return [f"{indent}((rank == 0)) || {name}+=({text})" + (f" # {why}" if why else "")]


def config_file(command: Command) -> list[str]:
    """The heredoc that writes TensorRT-LLM's YAML; JSON is YAML, and its values are numbers, booleans and fixed words."""
    if not command.config:
        return []
    rows = [f"{key}: {json.dumps(value)}" for key, value in command.config.items()]
    return ["cat >\"$RUN_DIR/trtllm.yaml\" <<'EOF'", *rows, "EOF"]


def comment(lines: Iterable[str]) -> list[str]:
    """Lines as shell comments."""
    return [f"# {line}".rstrip() for line in lines]
