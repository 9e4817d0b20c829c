check_number READY_SECONDS
check_number STOP_SECONDS
check_number RESTARTS
check_address "$LISTEN" "$PORT"
check_access
mapfile -t hosts < <(scontrol show hostnames "${SLURM_JOB_NODELIST:?submit this file with sbatch}")
((${#hosts[@]} >= @nodes@)) || die "the job has ${#hosts[@]} nodes and the plan uses @nodes@"
check_program curl 'install it with the package manager'
[[ -n $IMAGE ]] || check_program @program@ @install@
@balancer@
check_gpus @gpus@
check_model
@refusals@
check_port "$PORT"
