#!/bin/busybox sh
# The guest's first process. Lines that begin with KG- are read by the runner.
b=/bin/busybox
$b --install -s /bin
export PATH=/bin:/usr/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
echo "KG-UP $(cut -d' ' -f1 /proc/uptime) $(uname -r)"

# What the runner asks for is on the kernel's command line as kg.<name>=<value>.
asked() { tr ' ' '\n' </proc/cmdline | sed -n "s/^kg\.$1=//p"; }

for module in $(cat /modules/order); do
	case $module in
	brd.ko) set -- rd_nr=1 rd_size=163840 ;; # KiB
	*) set -- ;;
	esac
	insmod "/modules/$module" "$@" || echo "KG-MODULE $module is not loaded"
done
# A disk, so that the kernel can reclaim the pages of files on it.
[ -b /dev/ram0 ] && mke2fs /dev/ram0 >/dev/null && mount -t ext4 /dev/ram0 /tmp

mount -t bpf bpf /sys/fs/bpf
mount -t tracefs trace /sys/kernel/tracing
mount -t debugfs debug /sys/kernel/debug
case $(asked cgroup) in
v1) # as systemd's hybrid layout has it
	mount -t tmpfs cgroup /sys/fs/cgroup
	cd /sys/fs/cgroup && mkdir cpu,cpuacct memory unified
	ln -s cpu,cpuacct cpu
	ln -s cpu,cpuacct cpuacct
	mount -t cgroup -o cpu,cpuacct cpu,cpuacct cpu,cpuacct
	mount -t cgroup -o memory memory memory
	mount -t cgroup2 cgroup2 unified
	;;
*)
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	echo +cpu +memory >/sys/fs/cgroup/cgroup.subtree_control
	;;
esac
[ "$(asked btf)" = hidden ] && mount -t tmpfs hidden /sys/kernel/btf
ip link set lo up

cd /work
/test -test.v -test.timeout="$(asked timeout)" -test.run="$(asked run)" 2>&1
echo "KG-EXIT $? $(cut -d' ' -f1 /proc/uptime)"
sync
poweroff -f
