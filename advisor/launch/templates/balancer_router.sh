start_balancer() { # host:port of each server
  # cache_aware sends requests that share a prefix to the same server. The key is handed over in the environment: a process list
  # shows every user the words of a command.
  local start='
@start@
'
  local command=(-c "$start" --host "$LISTEN" --port "$PORT" --prometheus-host 127.0.0.1 --policy cache_aware)
  [[ -z $TLS_CERT ]] || command+=(--tls-cert-path "$TLS_CERT" --tls-key-path "$TLS_KEY")
  command+=(--worker-urls "${@/#/http://}")
  @restart@
  @run_router@
}
