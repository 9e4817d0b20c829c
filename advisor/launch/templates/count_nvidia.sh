check_program nvidia-smi "it comes with the NVIDIA driver"
found=$(nvidia-smi -L | grep -c '^GPU') || true
