mount_of() { # folder, mode: a bind mount at the same path, whatever characters the path has
  printf 'type=bind,"source=%s","target=%s"%s' "${1//\"/\"\"}" "${1//\"/\"\"}" "${2:+,$2}"
}

container() { # name, image, command: runs it in a container that sees all GPUs and the host's network
  local name=$1 image=$2 variable
  shift 2
  local options=(
    --rm --init --name "$NAME-$name"
    @gpus@
    --ipc host # the workers exchange tensors through shared memory
    --network host
    --ulimit memlock=-1 --ulimit stack=67108864
    --mount "$(mount_of "$HF_HOME")" --env HF_HOME
    @own_options@
  )
  # By name only: the values stay in the environment.
  for variable in HF_TOKEN HF_ENDPOINT HF_HUB_OFFLINE VLLM_API_KEY {HTTP,HTTPS,NO}_PROXY {http,https,no}_proxy; do
    [[ -z ${!variable:-} ]] || options+=(--env "$variable")
  done
  if [[ -d $MODEL ]]; then options+=(--mount "$(mount_of "$MODEL" readonly)"); fi
  @more_options@
  run "$name" docker run "${options[@]}" "${extra[@]}" "$image" "$@"
}
