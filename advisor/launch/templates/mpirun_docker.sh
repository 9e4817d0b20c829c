local extra=(--env CUDA_VISIBLE_DEVICES="$gpus") names=() name
if ((rank > 0)); then # the head starts this node's ranks through ssh
  # shellcheck disable=SC2016 # $0 is for the shell in the container
  container "server-$server" "$IMAGE" bash -c '
    @sshd@
  ' "$SSH_PORT"
  return
fi
local at=("${hosts[@]:NODE_RANK:@nodes@}") list host
printf -v list '%s:@each@,' "${at[@]}"
for host in "${at[@]:1}"; do wait_port "$host" "$SSH_PORT"; done
[[ -z $IFNAME ]] || names+=(--mca btl_tcp_if_include "$IFNAME" --mca oob_tcp_if_include "$IFNAME")
for name in HF_TOKEN HF_ENDPOINT HF_HUB_OFFLINE NCCL_SOCKET_IFNAME; do
  [[ -z ${!name:-} ]] || names+=(-x "$name")
done
container "server-$server" "$IMAGE" \
  mpirun --allow-run-as-root -n @ranks@ -H "${list%,}" \
  --mca plm_rsh_args "-p $SSH_PORT -o StrictHostKeyChecking=accept-new" "${names[@]}" \
  -x PATH -x LD_LIBRARY_PATH -x HF_HOME -x CUDA_DEVICE_ORDER -x CUDA_VISIBLE_DEVICES trtllm-llmapi-launch "${command[@]}"
