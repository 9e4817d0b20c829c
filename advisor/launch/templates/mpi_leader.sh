command -v ssh >/dev/null || { apt-get update && apt-get install -y --no-install-recommends openssh-client; } >&2
mkdir -p /root/.ssh
cp /root/.ssh-keys/* /root/.ssh/
chmod 600 /root/.ssh/*
hosts=$LWS_LEADER_ADDRESS:@each@
for i in $(seq 1 @workers@); do
  worker=${LWS_LEADER_ADDRESS/./-$i.}
  until (exec 3<>"/dev/tcp/$worker/@ssh_port@") 2>/dev/null; do sleep 2; done
  hosts+=,$worker:@each@
done
exec mpirun --allow-run-as-root -n @ranks@ -H "$hosts" \
  --mca plm_rsh_args "-p @ssh_port@ -o StrictHostKeyChecking=accept-new" \
  --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 \
  -x PATH -x LD_LIBRARY_PATH -x HF_HOME -x HF_TOKEN -x NCCL_SOCKET_IFNAME trtllm-llmapi-launch "$@"
