local step=(
  # sbatch exports the job's number of tasks, which counts for more than --ntasks-per-node: both are said.
  --nodes=@nodes@ --ntasks=@all_tasks@ --ntasks-per-node=@tasks@
  --nodelist="$nodes" --overlap --cpu-bind=none --kill-on-bad-exit=1
  @mpi@
)
if [[ -n $IMAGE ]]; then
  step+=(--container-image="$IMAGE" --container-mounts="$MOUNTS")
fi
