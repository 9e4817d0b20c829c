start_balancer() { # host:port of each server
  local server upstream="" secure="" key=""
  for server in "$@"; do upstream+="    server $server;"$'\n'; done
  [[ -z $TLS_CERT ]] || secure=" ssl; ssl_certificate $TLS_CERT; ssl_certificate_key $TLS_KEY"
  [[ -z $API_KEY ]] || key="if (\$http_authorization != \"Bearer $API_KEY\") { return 401; }"
  @restart@
  cat >"$RUN_DIR/nginx.conf" <<EOF
daemon off;
pid @pid@;
error_log stderr;
worker_processes auto;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path @folder@-body;
  proxy_temp_path @folder@-proxy;
  fastcgi_temp_path @folder@-fastcgi;
  uwsgi_temp_path @folder@-uwsgi;
  scgi_temp_path @folder@-scgi;
  upstream servers {
    zone servers 64k; # one count for all workers: without it each counts its own requests only
    least_conn; # to the server with the fewest requests in flight
$upstream  }
  server {
    listen $LISTEN:$PORT$secure;
    client_max_body_size 100m;
    location = /health { proxy_pass http://servers; }
    location / {
      $key
      proxy_pass http://servers;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off; # a long prompt is passed on as it comes, never through a file
      proxy_buffering off; # so are tokens
      proxy_read_timeout 3600s;
    }
  }
}
EOF
  @run_nginx@
}
