local at=("${hosts[@]:rank:@nodes@}") forward=() list name
printf -v list '%s:@each@,' "${at[@]}"
for name in HF_TOKEN HF_HOME NCCL_SOCKET_IFNAME; do
  [[ -z ${!name:-} ]] || forward+=(-x "$name")
done
run "server-$server" mpirun -n @ranks@ -H "${list%,}" --mca plm_rsh_args "-p $SSH_PORT" \
  -x CUDA_VISIBLE_DEVICES="$gpus" "${forward[@]}" trtllm-llmapi-launch "${command[@]}"
