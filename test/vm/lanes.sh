#!/bin/sh
# PID 1 of the machine: makes it look as a Debian with systemd does to a program, runs the tests as root and as an ordinary user.
# /vm is shared with the host: `job` comes from there, reports go there.

. /vm/job
export PATH="$path"

end() {
  sync
  echo b >/proc/sysrq-trigger
  while :; do sleep 1; done
}
# Whatever goes wrong here, the machine must not stay.
trap end EXIT

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
# What the kernel's security modules are told, before anything of them is used.
mount -t securityfs -o nosuid,nodev,noexec securityfs /sys/kernel/security
if [ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ] && command -v apparmor_parser >/dev/null; then
  apparmor_parser --replace --skip-cache "$repository/test/fixtures/apparmor/cloister-test"
fi
if grep -q selinuxfs /proc/filesystems && command -v secilc >/dev/null; then
  mount -t selinuxfs -o nosuid,noexec selinuxfs /sys/fs/selinux
  # In one writing: sel_write_load.
  secilc -c 33 -o /vm/policy -f /dev/null "$repository/test/vm/selinux.cil" && dd if=/vm/policy of=/sys/fs/selinux/load bs=1M && echo 1 >/sys/fs/selinux/enforce
fi
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs /run
# The clone may lie below /tmp.
mount --bind "$repository" /cloister
# A file system as most hosts have: upper layers need one that is no overlay, and ids can be mapped on it.
mount -t ext4 -o nosuid,nodev /dev/vda /tmp
chmod 1777 /tmp
ln -sfn /proc/self/fd /dev/fd
ln -sfn /proc/self/fd/0 /dev/stdin
ln -sfn /proc/self/fd/1 /dev/stdout
ln -sfn /proc/self/fd/2 /dev/stderr
[ ! -e /dev/fuse ] || chmod 666 /dev/fuse
hostname vm
# As hosts have it: their own name leads to them.
getent hosts vm >/dev/null || echo '127.0.1.1 vm' >>/etc/hosts
ip link set lo up
mount -t hugetlbfs hugetlbfs /dev/hugepages 2>/dev/null
# As hosts have it where it is not for programs.
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777 tmpfs /var/tmp

# A user as adduser(8) makes them, without subordinate ids.
uid=1000
sed -i '/^[^:]*:[^:]*:1000:/d' /etc/passwd /etc/group
echo "vm:x:$uid:$uid::/tmp/home:/bin/sh" >>/etc/passwd
echo "vm:x:$uid:" >>/etc/group
: >/etc/subuid
: >/etc/subgid
mkdir /tmp/home
chown $uid:$uid /tmp/home

# Pure cgroup v2. Every controller goes down to two places: a scope of root's, and a subtree that is the user's own, as
# `systemd-run --user --scope -p Delegate=yes` gives it; the user's shell is in a leaf there, so that groups can be made beside it.
cgroups=/sys/fs/cgroup
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 $cgroups
all=$(sed 's/\([^ ][^ ]*\)/+\1/g' $cgroups/cgroup.controllers)
echo "vm: controllers $all"
delegated=$cgroups/user.slice/user@$uid.service
mkdir -p $cgroups/root.scope $delegated/shell.scope
for group in $cgroups $cgroups/user.slice $delegated; do echo "$all" >$group/cgroup.subtree_control; done
for group in $delegated $delegated/shell.scope; do
  chown $uid:$uid $group $group/cgroup.procs $group/cgroup.threads $group/cgroup.subtree_control
done

chmod 1777 /cloister
mkdir -p /cloister/build-ts
chmod 1777 /cloister/build-ts
cd /cloister || exit

lane() {
  name=$1 group=$2 home=$3 must=$4,$abilities
  shift 4
  echo $$ >"$group/cgroup.procs"
  program=${command:-"$node node_modules/vitest/vitest.mjs run --configLoader runner --testTimeout $timeout --hookTimeout $timeout \
      --reporter=verbose --reporter=json --outputFile.json=/vm/$name.json $tests"}
  "$@" env -i HOME="$home" LANG=C.UTF-8 TERM=dumb CI=1 PATH="$path" CLOISTER_SCRATCH_DISK=/dev/vdb CLOISTER_MUST=1 CLOISTER_LANE="$must" CLOISTER_SHARE="$share" CLOISTER_PATIENCE="$patience" \
    sh -c "$program" >"/vm/$name.log" 2>&1 </dev/null
  echo $? >"/vm/$name.status"
  echo $$ >$cgroups/cgroup.procs
}

controllers=cgroup-v2,controller:cpu,controller:cpuset,controller:io,controller:memory,controller:pids,controller:hugetlb,controller:misc,controller:rdma
common=user-namespaces,own-name,program:unshare,program:ip,time-namespaces,overlay,python3,ipv6,pressure,fuse,seccomp-notify,two-cpus,$controllers
for user in $users; do
  case $user in
    root)
      # Upper layers of root's own are there, and cannot be on the machine's overlay.
      mkdir -p /var/lib/cloister /tmp/var
      mount --bind /tmp/var /var/lib/cloister
      lane root $cgroups/root.scope /root "root,netem,$common" env
      umount /var/lib/cloister
      ;;
    user)
      chown $uid:$uid /dev/vdb
      lane user $delegated/shell.scope /tmp/home "unprivileged,$common" setpriv --reuid $uid --regid $uid --clear-groups --inh-caps=-all
      ;;
  esac
done
