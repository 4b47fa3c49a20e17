#!/bin/busybox sh
# The guest's first process: loads the modules, then goes over to the disk.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for module in $($b cat /modules/order); do
	$b insmod "/modules/$module" || echo "KG-NODE insmod $module failed"
done
n=0
while [ ! -b /dev/vda ] && [ $n -lt 300 ]; do
	$b sleep 0.1
	n=$((n + 1))
done
$b mount -t ext4 -o noatime /dev/vda /root || echo "KG-NODE there is no disk"
$b umount /proc /sys /dev
exec $b switch_root /root /sbin/init
