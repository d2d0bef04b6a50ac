#!/bin/busybox sh
# The guest's first process: it mounts the host's root, read-only, and the two folders beside it, then runs guest.sh
# there. When it ends, the kernel panics and the machine stops, so a guest cannot hang here.
b=/bin/busybox
. /variables
$b mount -t devtmpfs devtmpfs /dev
$b mount -t proc proc /proc
for module in /modules/*; do
	$b insmod "$module" || echo "guest: cannot load $module"
done

options=trans=virtio,version=9p2000.L,msize=512000
$b mount -t 9p -o ro,cache=loose,$options root /root || exit

# All folders that guests write to are on the guest's disk, or in its memory. The checkout and the results may be
# below them.
$b mount -t tmpfs -o mode=755 tmpfs /root/run || exit
$b mkdir /root/run/disk
$b mount -t ext4 /dev/vda /root/run/disk || exit
for folder in /tmp /var/tmp; do
	$b mkdir -p -m 1777 /root/run/disk$folder
	$b mount -o bind /root/run/disk$folder /root$folder || exit
done
$b mkdir -p "/root$VM_CHECKOUT" "/root$VM_RESULTS" 2>/dev/null
$b mount -t 9p -o ro,cache=loose,$options checkout "/root$VM_CHECKOUT" || exit
$b mount -t 9p -o rw,cache=mmap,$options results "/root$VM_RESULTS" || exit

# The folders of vm/python_disk.py, over those of the host.
$b mkdir /root/run/python
$b mount -t ext4 -o ro /dev/vdb /root/run/python || exit
number=0
while IFS= read -r folder; do
	$b mount -o bind "/root/run/python/$number" "/root$folder" || exit
	number=$((number + 1))
done <<END
$VM_FOLDERS
END

$b umount /proc
$b mount -o move /dev /root/dev
$b cp /guest.sh /systemd.sh /root/run/ # a shell reads its script as it goes, and the checkout's may be edited meanwhile
exec $b switch_root /root /bin/bash /run/guest.sh
