local extra=(--env CUDA_VISIBLE_DEVICES="$gpus")
if ((rank > 0)); then # the head starts this node's ranks through ssh
  # shellcheck disable=SC2016 # $0 is for the shell in the container
  container "server-$server" "$IMAGE" bash -c 'mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -p $0' "$SSH_PORT"
  return
fi
local at=("${hosts[@]:NODE_RANK:@nodes@}") list host
printf -v list '%s:@each@,' "${at[@]}"
for host in "${at[@]:1}"; do wait_port "$host" "$SSH_PORT"; done
container "server-$server" "$IMAGE" \
  mpirun --allow-run-as-root -n @ranks@ -H "${list%,}" \
  --mca plm_rsh_args "-p $SSH_PORT -o StrictHostKeyChecking=accept-new" \
  -x CUDA_VISIBLE_DEVICES -x HF_TOKEN -x NCCL_SOCKET_IFNAME trtllm-llmapi-launch "${command[@]}"
