start_balancer() { # host:port of each server
  local server upstream=""
  for server in "$@"; do upstream+="    server $server;"$'\n'; done
  cat >"$RUN_DIR/nginx.conf" <<EOF
daemon off;
pid @folder@nginx.pid;
error_log stderr;
worker_processes auto;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path @folder@tmp-body;
  proxy_temp_path @folder@tmp-proxy;
  fastcgi_temp_path @folder@tmp-fastcgi;
  uwsgi_temp_path @folder@tmp-uwsgi;
  scgi_temp_path @folder@tmp-scgi;
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
  @run_nginx@
}
