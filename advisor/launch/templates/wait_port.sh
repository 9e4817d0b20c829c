wait_port() { # host, port
  local deadline=$((SECONDS + READY_SECONDS))
  until (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; do
    ((SECONDS < deadline)) || die "$1 does not listen on port $2: start this script there too"
    sleep 2
  done
}
