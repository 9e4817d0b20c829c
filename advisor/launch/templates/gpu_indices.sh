gpu_indices() { # ids as nvidia-smi -L prints them: their indices, in the same order, by PCI bus as CUDA_DEVICE_ORDER says
  local id found=""
  for id in ${1//,/ }; do
    [[ $id =~ ^[0-9]+$ ]] || id=$(nvidia-smi --id="$id" --query-gpu=index --format=csv,noheader) || die "there is no GPU $id here"
    found+=,$id
  done
  echo "${found#,}"
}
