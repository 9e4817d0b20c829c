"""One bash script that runs the engine's image: the course of events is that of the bash target, the processes are containers."""

from __future__ import annotations

from advisor.errors import QuestionError
from advisor.launch import shell as sh
from advisor.launch.bash import Parts, assemble, start_server, variables
from advisor.launch.request import Request
from advisor.launch.script import ScriptFile

NAME = "docker.sh"
NGINX_IMAGE = "nginx:1.29"
OURS = "^$NAME-(server-[0-9]+|balancer)\\$"
SSHD = "mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -p $0"


def render(request: Request) -> tuple[ScriptFile, ...]:
    """The script that starts every server of the plan in a container on the node it runs on."""
    needs_image(request)
    own = [
        sh.setting("IMAGE", request.image),
        sh.setting("NAME", request.name, "the containers' names begin with it"),
        "HF_HOME=${HF_HOME:-$HOME/.cache/huggingface} # where the weights are kept",
    ]
    parts = Parts(
        name=NAME,
        variables=tuple(variables(request, tuple(own))),
        functions=(*start_server(request, _run_lines(request)), "", *_container(request), *_balancer(request)),
        checks=tuple(_checks(request)),
        after_stop=f'docker ps --quiet --filter "name={OURS}" | xargs -r docker rm --force >/dev/null',
    )
    return (assemble(request, parts),)


def needs_image(request: Request) -> None:
    """Raise where neither the profile nor the user names an image."""
    if not request.image:
        raise QuestionError(f"the {request.problem.engine.name} profile names no container image; give one with --image.")


def _container(request: Request) -> list[str]:
    lines = [
        "container() { # name, image, command: runs it in a container that sees all GPUs and the host's network",
        "  local name=$1 image=$2",
        "  shift 2",
        "  local options=(",
        '    --rm --init --name "$NAME-$name"',
        "    --gpus all # CUDA_VISIBLE_DEVICES chooses and orders them: --gpus device=... would lose the order",
        "    --ipc host # the workers exchange tensors through shared memory",
        "    --network host",
        "    --ulimit memlock=-1 --ulimit stack=67108864",
        '    --volume "$HF_HOME:/root/.cache/huggingface" --env HF_TOKEN # by name only: the value stays in the environment',
    ]
    if request.command.config:
        lines.append('    --volume "$RUN_DIR:$RUN_DIR"')
    if request.command.env:
        lines.append("    " + " ".join(f"--env {name}" for name, _ in request.command.env))
    if request.spans:
        lines.append("    --env NCCL_SOCKET_IFNAME --env GLOO_SOCKET_IFNAME --env VLLM_HOST_IP")
    lines += ["  )", '  if [[ -d $MODEL ]]; then options+=(--volume "$MODEL:$MODEL:ro"); fi']
    if request.spans:
        lines.append("  if [[ -e /dev/infiniband ]]; then options+=(--device /dev/infiniband --cap-add IPC_LOCK); fi")
    if request.command.per_rank:
        lines.append('  options+=(--volume "$HOME/.ssh:/root/.ssh:ro") # keys between the containers, owned by root')
    if request.problem.engine.name == "vllm":
        lines.append("  options+=(--entrypoint '') # the image would put `vllm serve` before the command")
    wait_port = [
        "wait_port() { # host, port",
        "  local deadline=$((SECONDS + READY_SECONDS))",
        '  until (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; do',
        '    ((SECONDS < deadline)) || die "$1 does not listen on port $2: start this script there too"',
        "    sleep 2",
        "  done",
        "}",
        "",
    ]
    tail = wait_port if request.command.per_rank else []
    return [*lines, '  run "$name" docker run "${options[@]}" "${extra[@]}" "$image" "$@"', "}", "", *tail]


def _run_lines(request: Request) -> list[str]:
    gpus = '  local extra=(--env CUDA_VISIBLE_DEVICES="$gpus")'
    if not request.command.per_rank:
        return [gpus, '  container "server-$server" "$IMAGE" "${command[@]}"']
    first = request.servers[0]
    return [
        gpus,
        "  if ((rank > 0)); then # the head starts this node's ranks through ssh",
        "    # shellcheck disable=SC2016 # $0 is for the shell in the container",
        f'    container "server-$server" "$IMAGE" bash -c \'{SSHD}\' "$SSH_PORT"',
        "    return",
        "  fi",
        f'  local at=("${{hosts[@]:NODE_RANK:{len(first.nodes)}}}") list host',
        f"  printf -v list '%s:{len(first.gpus[0])},' \"${{at[@]}}\"",
        '  for host in "${at[@]:1}"; do wait_port "$host" "$SSH_PORT"; done',
        '  container "server-$server" "$IMAGE" \\',
        f'    mpirun --allow-run-as-root -n {sum(map(len, first.gpus))} -H "${{list%,}}" \\',
        '    --mca plm_rsh_args "-p $SSH_PORT -o StrictHostKeyChecking=accept-new" \\',
        '    -x CUDA_VISIBLE_DEVICES -x HF_TOKEN -x NCCL_SOCKET_IFNAME trtllm-llmapi-launch "${command[@]}"',
    ]


def _balancer(request: Request) -> list[str]:
    if not request.balanced:
        return []
    if request.engine.BALANCER == "nginx":
        run = [
            '  run balancer docker run --rm --init --name "$NAME-balancer" --network host \\',
            f'    --volume "$RUN_DIR/nginx.conf:/etc/nginx/nginx.conf:ro" {NGINX_IMAGE} nginx -e stderr',
        ]
        text = sh.NGINX.replace("  @RUN_NGINX@", "\n".join(run)).replace("pid nginx.pid", "pid /tmp/nginx.pid")
        return [text.replace("temp_path tmp-", "temp_path /tmp/"), ""]
    run_router = 'run balancer docker run --rm --init --name "$NAME-balancer" --network host "$IMAGE" \\\n    '
    run_router += "python3 -m sglang_router.launch_router"
    return [sh.ROUTER.replace("@RUN_ROUTER@", run_router), ""]


def _checks(request: Request) -> list[str]:
    return [
        "check_program docker 'see docs.docker.com/engine/install'",
        "check_program curl 'install it with the package manager'",
        f"check_gpus {request.gpus_needed}",
        "check_model",
        'docker info >/dev/null 2>&1 || die "docker does not answer; is its service running, and may this user use it?"',
        'docker image inspect "$IMAGE" >/dev/null 2>&1 || docker pull "$IMAGE" ||',
        '  die "the image $IMAGE is not here and cannot be pulled"',
        'old=$(docker ps --all --format "{{.Names}}" --filter "name=' + OURS + '" | tr "\\n" " ")',
        '[[ -z $old ]] || die "containers of an earlier start are there; remove them first: docker rm --force $old"',
    ]
