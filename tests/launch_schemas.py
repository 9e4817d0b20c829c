"""The parts of two public schemas that our files use, transcribed field by field; a field that is not listed is refused."""

from __future__ import annotations

TEXT, WORDS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}


def fields(required: tuple[str, ...] = (), **properties: dict) -> dict:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_POD = fields(
    ("spec",),
    metadata=fields(labels={"type": "object"}, annotations={"type": "object"}),
    spec={"type": "object", "required": ["containers"]},
)

# kubernetes-sigs/lws, api/leaderworkerset/v1: LeaderWorkerSetSpec and LeaderWorkerTemplate.
LEADER_WORKER_SET = fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "leaderworkerset.x-k8s.io/v1"},
    kind={"const": "LeaderWorkerSet"},
    metadata={"type": "object", "required": ["name"]},
    spec=fields(
        ("leaderWorkerTemplate",),
        replicas={"type": "integer", "minimum": 0},
        startupPolicy={"enum": ["LeaderCreated", "LeaderReady"]},
        leaderWorkerTemplate=fields(
            ("workerTemplate",),
            size={"type": "integer", "minimum": 1},
            restartPolicy={"enum": ["RecreateGroupOnPodRestart", "None", "Default", "RecreateGroupAfterStart"]},
            leaderTemplate=_POD,
            workerTemplate=_POD,
        ),
    ),
)

_SERVICE = fields(
    image=TEXT,
    entrypoint=WORDS,
    command=WORDS,
    environment={"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
    network_mode=TEXT,
    ipc=TEXT,
    init={"type": "boolean"},
    ulimits={"type": "object", "additionalProperties": {"type": "integer"}},
    volumes={
        "type": "array",
        "items": {
            "oneOf": [
                TEXT,
                fields(
                    ("type",), type={"enum": ["bind", "volume", "tmpfs"]}, source=TEXT, target=TEXT, read_only={"type": "boolean"}
                ),
            ]
        },
    },
    deploy=fields(
        resources=fields(
            reservations=fields(
                devices={
                    "type": "array",
                    "items": fields(
                        ("capabilities",),
                        driver=TEXT,
                        count={"oneOf": [TEXT, {"type": "integer"}]},
                        device_ids=WORDS,
                        capabilities=WORDS,
                    ),
                }
            )
        )
    ),
    configs={"type": "array", "items": fields(source=TEXT, target=TEXT)},
    cap_add=WORDS,
    group_add=WORDS,
    security_opt=WORDS,
    devices=WORDS,
    depends_on={
        "type": "object",
        "additionalProperties": fields(
            ("condition",), condition={"enum": ["service_started", "service_healthy", "service_completed_successfully"]}
        ),
    },
    healthcheck=fields(test=WORDS, interval=TEXT, timeout=TEXT, retries={"type": "integer"}, start_period=TEXT),
    stop_grace_period=TEXT,
    restart={"enum": ["no", "always", "on-failure", "unless-stopped"]},
)

# compose-spec/compose-spec, schema/compose-spec.json: service, deployment devices, healthcheck, configs; x- keys are free.
COMPOSE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {"type": "object", "additionalProperties": _SERVICE},
        "configs": {"type": "object", "additionalProperties": fields(content=TEXT)},
    },
    "required": ["services"],
    "patternProperties": {"^x-": {}},
    "additionalProperties": False,
}
