read -ra hosts <<<"$HOSTS"
((${#hosts[@]} == @nodes@)) ||
  die "HOSTS has ${#hosts[@]} addresses and the plan uses @nodes@ nodes"
for host in "${hosts[@]}"; do
  [[ $host =~ ^[A-Za-z0-9][A-Za-z0-9.:_-]*$ ]] || die "HOSTS holds $host, which is no address"
done
