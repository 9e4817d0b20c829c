mkdir -p /run/sshd /root/.ssh
cp /root/.ssh-keys/* /root/.ssh/
chmod 600 /root/.ssh/*
exec /usr/sbin/sshd -D -e -p @ssh_port@
