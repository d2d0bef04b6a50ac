# Read by guest.sh in the first process, which becomes systemd: Debian's own, with no unit but its journal, what a
# service needs, and guest.sh again, as a service that runs the tests.
units=/usr/lib/systemd/system

# The host's configuration and state are not the guest's. The files of services are on the guest's disk.
mount -t tmpfs tmpfs /etc/systemd
mkdir -p /etc/systemd/system
for folder in /var/lib /var/cache /var/log; do
	mkdir -p /run/disk$folder
	mount -o bind /run/disk$folder $folder
done
for target in sysinit basic local-fs sockets timers; do
	[ ! -d $units/$target.target.wants ] || mount -t tmpfs tmpfs $units/$target.target.wants
done

cat >/etc/systemd/system/guest.target <<-END
	[Unit]
	Description=The tests of this guest
	DefaultDependencies=no
	Wants=systemd-journald.service guest.service
END
cat >/etc/systemd/system/guest.service <<-END
	[Unit]
	Description=guest.sh
	DefaultDependencies=no
	After=systemd-journald.service

	[Service]
	Type=oneshot
	PassEnvironment=VM_INIT VM_HOST_COMPILES VM_CHECKOUT VM_RESULTS VM_CGROUP VM_TIMEOUT_S MEMCG_TRACER_SLOWDOWN
	Environment="PYTHONPATH=$VM_CHECKOUT"
	ExecStart=/bin/bash /run/guest.sh
END
exec /lib/systemd/systemd --unit=guest.target --log-level=info --log-target=console --show-status=no
