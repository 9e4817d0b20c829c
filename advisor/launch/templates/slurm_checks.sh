mapfile -t hosts < <(scontrol show hostnames "${SLURM_JOB_NODELIST:?submit this file with sbatch}")
((${#hosts[@]} >= @nodes@)) || die "the job has ${#hosts[@]} nodes and the plan uses @nodes@"
check_program curl 'install it with the package manager'
[[ -n $IMAGE ]] || check_program @program@ @install@
@balancer@
check_gpus @gpus@
check_model
check_address "$LISTEN" "$PORT"
check_port "$PORT"
