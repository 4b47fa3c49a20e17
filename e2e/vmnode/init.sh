#!/bin/busybox sh
# The node's init. Lines that begin with KG- are read by the runner; the programs' own
# words go to the second serial port.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs trace /sys/kernel/tracing
mount --make-rshared /
uptime() { cut -d' ' -f1 /proc/uptime; }
echo "KG-UP $(uptime) $(uname -r)"
hostname -F /etc/hostname
ip link set lo up
ip link set eth0 up
ip addr add "$(cat /node/address)/24" dev eth0
ip route add default via 10.0.2.2
echo 1 >/proc/sys/net/ipv4/ip_forward
while sleep 10; do echo "KG-ALIVE $(uptime)"; done &

containerd --config /node/containerd.toml >/dev/ttyS1 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.5; done
echo "KG-NODE $(uptime) containerd answers"
for image in /images/*.tar; do
	ctr -n k8s.io images import --local "$image" >/dev/ttyS1 2>&1 || echo "KG-NODE importing $image failed"
done
rm -r /images
echo "KG-NODE $(uptime) images imported"
kubelet $(cat /node/kubelet-flags) >/dev/ttyS1 2>&1
echo "KG-NODE $(uptime) kubelet ended with $?"
sync
poweroff -f
