container() { # name, image, command: runs it in a container that sees all GPUs and the host's network
  local name=$1 image=$2
  shift 2
  local options=(
    --rm --init --name "$NAME-$name"
    --gpus all # CUDA_VISIBLE_DEVICES chooses and orders them: --gpus device=... would lose the order
    --ipc host # the workers exchange tensors through shared memory
    --network host
    --ulimit memlock=-1 --ulimit stack=67108864
    --volume "$HF_HOME:/root/.cache/huggingface" --env HF_TOKEN # by name only: the value stays in the environment
    @own_options@
  )
  if [[ -d $MODEL ]]; then options+=(--volume "$MODEL:$MODEL:ro"); fi
  @more_options@
  run "$name" docker run "${options[@]}" "${extra[@]}" "$image" "$@"
}
