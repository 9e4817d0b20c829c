start_ray() { # GPUs of this node, its rank: the head of the Ray cluster, or one that joins it
  local gpus=$1 rank=$2 address=${hosts[NODE_RANK]}
  if ((rank == 0)); then
    run ray env CUDA_VISIBLE_DEVICES="$gpus" ray start --head --block --port "$DIST_PORT" \
      --node-ip-address "$address" --num-gpus @each@
  else
    run ray env CUDA_VISIBLE_DEVICES="$gpus" ray start --block --address "${hosts[0]}:$DIST_PORT" \
      --node-ip-address "$address" --num-gpus @each@
  fi
}

wait_ray() { # until every node has joined
  local deadline=$((SECONDS + READY_SECONDS)) seen=0
  local ask='import ray; ray.init(address="auto", logging_level=40); print(int(ray.cluster_resources().get("GPU", 0)))'
  until ((seen >= @total@)); do
    check_running
    ((SECONDS < deadline)) || die "the other nodes did not join the Ray cluster within $READY_SECONDS s"
    sleep 2
    seen=$(python3 -c "$ask" 2>/dev/null) || seen=0
  done
}
