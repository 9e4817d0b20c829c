docker ps --quiet --filter "name=^$NAME-(server-[0-9]+|balancer)\$" | xargs -r docker rm --force >/dev/null
