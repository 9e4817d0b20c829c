start_balancer() { # host:port of each server
  # cache_aware sends requests that share a prefix to the same server.
  @run_router@ --host "$LISTEN" --port "$PORT" \
    --policy cache_aware --worker-urls "${@/#/http://}"
}
