local at=("${hosts[@]:rank:@nodes@}") options=() list name
printf -v list '%s:@each@,' "${at[@]}"
for name in PATH LD_LIBRARY_PATH HF_TOKEN HF_HOME HF_ENDPOINT HF_HUB_OFFLINE CUDA_DEVICE_ORDER NCCL_SOCKET_IFNAME; do
  [[ -z ${!name:-} ]] || options+=(-x "$name")
done
[[ -z $IFNAME ]] || options+=(--mca btl_tcp_if_include "$IFNAME" --mca oob_tcp_if_include "$IFNAME")
((EUID != 0)) || options+=(--allow-run-as-root)
run "server-$server" mpirun -n @ranks@ -H "${list%,}" --mca plm_rsh_args "-p $SSH_PORT" \
  -x CUDA_VISIBLE_DEVICES="$gpus" "${options[@]}" trtllm-llmapi-launch "${command[@]}"
