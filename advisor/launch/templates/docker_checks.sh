check_program docker 'see docs.docker.com/engine/install'
check_program curl 'install it with the package manager'
check_gpus @gpus@
check_model
if [[ -d $MODEL ]]; then MODEL=$(realpath "$MODEL"); fi # the same path inside the container
mkdir -p "$HF_HOME"
HF_HOME=$(realpath "$HF_HOME")
export HF_HOME
docker info >/dev/null 2>&1 || die "docker does not answer; is its service running, and may this user use it?"
docker image inspect "$IMAGE" >/dev/null 2>&1 || docker pull "$IMAGE" ||
  die "the image $IMAGE is not here and cannot be pulled"
old=$(docker ps --all --format "{{.Names}}" --filter "name=^$NAME-(server-[0-9]+|balancer)\$" | tr "\n" " ")
[[ -z $old ]] || die "containers of an earlier start are there; remove them first: docker rm --force $old"
