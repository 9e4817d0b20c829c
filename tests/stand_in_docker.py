"""A stand-in for docker: `run` starts the command here, with the environment that the options hand over, and notes the mounts."""

import csv
import json
import os
import sys

VALUED = ("--name", "--gpus", "--ipc", "--network", "--ulimit", "--mount", "--env", "--entrypoint", "--device", "--cap-add",
          "--group-add", "--security-opt")  # fmt: skip
argv = sys.argv[1:]
if argv[0] != "run":
    sys.exit(0)
environment = {"PATH": os.environ["PATH"], "RECORD": os.environ["RECORD"]}
mounts, names, at = [], [], 1
while argv[at].startswith("--"):
    option, at = argv[at], at + 1
    if option not in VALUED:
        continue
    value, at = argv[at], at + 1
    if option == "--env":
        name, equals, text = value.partition("=")
        if equals or name in os.environ:
            environment[name] = text if equals else os.environ[name]
    elif option == "--mount":
        fields = dict(field.partition("=")[::2] for field in next(csv.reader([value])))
        assert os.path.exists(fields["source"]), fields
        mounts.append(fields)
    elif option == "--name":
        names.append(value)
with open(os.path.join(os.environ["RECORD"], f"docker-{names[0]}"), "w") as out:
    json.dump({"mounts": mounts, "environment": environment, "command": argv[at:], "options": argv[1:at]}, out)
os.execvpe(argv[at + 1], argv[at + 1 :], environment)
