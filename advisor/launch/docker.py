"""One bash script that runs the engine's image: the course of events is that of the bash target, the processes are containers."""

from __future__ import annotations

from advisor.errors import QuestionError
from advisor.launch import shell as sh
from advisor.launch.bash import RESTART_BALANCER, Parts, assemble, start_server, variables
from advisor.launch.request import Request
from advisor.launch.script import ScriptFile
from advisor.launch.template import lines

NAME = "docker.sh"
NGINX_IMAGE = "nginx:1.29"
CERTIFICATE = '--mount "$(mount_of "$TLS_CERT" readonly)" --mount "$(mount_of "$TLS_KEY" readonly)"'


def render(request: Request) -> tuple[ScriptFile, ...]:
    """The script that starts every server of the plan in a container on the node it runs on."""
    needs_image(request)
    own = [
        sh.setting("IMAGE", request.image),
        sh.setting("NAME", request.name, "the containers' names begin with it"),
        "HF_HOME=${HF_HOME:-$HOME/.cache/huggingface} # where the weights are kept, here and in the containers",
    ]
    parts = Parts(
        name=NAME,
        variables=tuple(variables(request, tuple(own))),
        functions=(*start_server(request, _run_lines(request)), "", *_container(request), *_balancer(request)),
        checks=tuple(_checks(request)),
        before_restart=('docker rm --force "$NAME-$name" >/dev/null 2>&1 || true',),
        after_stop=tuple(lines("docker_after_stop.sh")),
    )
    return (assemble(request, parts),)


def needs_image(request: Request) -> None:
    """Raise where neither the profile nor the user names an image."""
    if not request.image:
        raise QuestionError(f"the {request.problem.engine.name} profile names no container image; give one with --image.")


def _container(request: Request) -> list[str]:
    own, more = [], []
    if request.command.config or request.engine.KEY_LINES:
        own.append('--mount "$(mount_of "$RUN_DIR" readonly)"')
    if request.command.env:
        own.append(" ".join(f"--env {name}" for name, _ in request.command.env))
    if request.spans:
        own.append("--env NCCL_SOCKET_IFNAME --env GLOO_SOCKET_IFNAME --env VLLM_HOST_IP")
        more.append("if [[ -e /dev/infiniband ]]; then options+=(--device /dev/infiniband --cap-add IPC_LOCK); fi")
    if request.command.per_rank:
        more.append('options+=(--volume "$HOME/.ssh:/root/.ssh:ro") # keys between the containers, owned by root')
    if request.problem.engine.name == "vllm":
        more.append("options+=(--entrypoint '') # the image would put `vllm serve` before the command")
    if request.engine.CHECKS_KEY and not request.balanced:
        more.append(
            '[[ -z $TLS_CERT ]] || options+=(--mount "$(mount_of "$TLS_CERT" readonly)" --mount "$(mount_of "$TLS_KEY" readonly)")'
        )
    wait = [*lines("wait_port.sh"), ""] if request.command.per_rank else []
    return [*lines("container.sh", gpus=lines(request.vendor.container), own_options=own, more_options=more), "", *wait]


def _run_lines(request: Request) -> list[str]:
    if not request.command.per_rank:
        return [f'  local extra=(--env {request.vendor.visible}="$gpus")', '  container "server-$server" "$IMAGE" "${command[@]}"']
    first = request.servers[0]
    each = len(first.gpus[0])
    sshd = lines("sshd.sh")
    return sh.indented(lines("mpirun_docker.sh", sshd=sshd, nodes=len(first.nodes), each=each, ranks=each * len(first.nodes)))


def _balancer(request: Request) -> list[str]:
    if not request.balanced:
        return []
    if request.engine.BALANCER == "nginx":
        run = [
            'local mounts=(--mount "$(mount_of "$RUN_DIR/nginx.conf" readonly)")',
            f"[[ -z $TLS_CERT ]] || mounts+=({CERTIFICATE})",
            'run balancer docker run --rm --init --name "$NAME-balancer" --network host "${mounts[@]}" \\',
            f'  {NGINX_IMAGE} nginx -e stderr -c "$RUN_DIR/nginx.conf"',
        ]
        return [*lines("balancer_nginx.sh", pid="/tmp/nginx.pid", folder="/tmp/tmp", restart=RESTART_BALANCER, run_nginx=run), ""]
    router = [
        "local mounts=()",
        f"[[ -z $TLS_CERT ]] || mounts+=({CERTIFICATE})",
        "export API_KEY",
        'run balancer docker run --rm --init --name "$NAME-balancer" --network host --env API_KEY "${mounts[@]}" "$IMAGE" \\',
        '  python3 "${command[@]}"',
    ]
    return [*lines("balancer_router.sh", start=lines("router.python"), restart=RESTART_BALANCER, run_router=router), ""]


def _checks(request: Request) -> list[str]:
    return lines("docker_checks.sh", gpus=request.gpus_needed)
