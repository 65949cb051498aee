#!/bin/busybox sh
# PID 1 of the initramfs: modules, the host's tree over 9p with a writable layer above it, and on to lanes.sh in there.

fail() {
  echo "vm: $*"
  echo b >/proc/sysrq-trigger
}

/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r name; do insmod "/modules/$name.ko" || echo "vm: no module $name"; done </modules/order

mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /lower || fail 'the host is not to be had'
mount -t tmpfs -o mode=0755 tmpfs /upper
mkdir /upper/layer /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/layer,workdir=/upper/work overlay /root || fail 'no overlay'
mkdir -p /root/cloister /root/vm
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none share /root/vm || fail 'no share'
umount /proc /sys
mount --move /dev /root/dev
exec switch_root /root /bin/sh /vm/lanes.sh
