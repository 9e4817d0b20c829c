local step=(
  --nodes=@nodes@ --nodelist="$nodes" --overlap --cpu-bind=none --kill-on-bad-exit=1
  --ntasks-per-node=@tasks@
  @mpi@
)
if [[ -n $IMAGE ]]; then
  step+=(--container-image="$IMAGE" --container-mounts="$HF_HOME:/root/.cache/huggingface,$RUN_DIR:$RUN_DIR")
fi
