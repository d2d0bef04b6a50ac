#!/bin/bash
# The guest's first process on the host's root: it sets the machine up as a distribution does, runs the kernel tests,
# and writes their output to $VM_RESULTS. Every file that it or a test writes is on the guest's own disk.
exec </dev/null >>"$VM_RESULTS/guest.log" 2>&1

# With systemd, this is run twice: as the first process, which becomes systemd, then as a service.
if [ "$VM_INIT" = systemd ] && [ $$ = 1 ]; then
	. /run/systemd.sh
fi

# Do what a distribution's first process does.
set_up_machine() {
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mkdir -p /dev/shm /dev/pts
	mount -t tmpfs tmpfs /dev/shm
	mount -t devpts devpts /dev/pts
	for link in fd: stdin:/0 stdout:/1 stderr:/2; do
		ln -sfn "/proc/self/fd${link#*:}" "/dev/${link%:*}"
	done
	mount -t securityfs securityfs /sys/kernel/security
	mount -t debugfs debugfs /sys/kernel/debug
	mount -t tracefs tracefs /sys/kernel/tracing
	mount -t bpf bpf /sys/fs/bpf
	busybox ip link set lo up
	busybox hostname guest

	if [ "$VM_CGROUP" = 1 ]; then
		mount -t tmpfs tmpfs /sys/fs/cgroup
		mkdir /sys/fs/cgroup/memory /sys/fs/cgroup/unified
		mount -t cgroup -o memory cgroup /sys/fs/cgroup/memory
		mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
	else
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
		echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	fi
}
[ "$VM_INIT" = systemd ] || set_up_machine

mkdir /run/disk/home
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/run/disk/home TERM=dumb LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
export MEMCG_TRACER_KERNEL_TESTS=1
export MEMCG_TRACER_CACHE=/run/disk/cache # the default, /var/cache, is the host's, and read-only
[ -z "$VM_HOST_COMPILES" ] || export MEMCG_TRACER_COMPILER="$VM_CHECKOUT/tests/vm/compiler.sh"
export MEMCG_TRACER_WHOLE_MACHINE=1 # tests may drop the guest's caches

cd "$VM_CHECKOUT"
python=$VM_CHECKOUT/.venv/bin/python
uname -r >"$VM_RESULTS/release"
# The other guests of a kernel have the same hooks.
[ "$(<"$VM_RESULTS/markers")" != vm ] || "$python" -m tracer doctor --json >"$VM_RESULTS/doctor.json"
mapfile -t tests <"$VM_RESULTS/tests"

# Run the tests with further options of pytest. $1 names the results. pytest has its own session, because tests send
# signals to process groups. The time limit ends pytest by SIGINT, so that it still prints its results. It counts from boot,
# as the limit of the machine does.
run_tests() {
	local left_s=$((VM_TIMEOUT_S - $(cut -d. -f1 /proc/uptime)))
	setsid --wait timeout -s INT -k 30 $((left_s > 1 ? left_s : 1)) "$python" -m pytest -m "$(<"$VM_RESULTS/markers")" \
		-o cache_dir=/run/disk/pytest-cache -o verbosity_assertions=2 --durations=0 \
		--junitxml="/run/disk/$1.xml" "${@:2}" "${tests[@]}" >"$VM_RESULTS/$1.log"
	local status=$?
	cp "/run/disk/$1.xml" "$VM_RESULTS/"
	return $status
}

run_tests pytest
status=$?
# An emulated processor stands still while the host has no time for it. So what failed gets a second chance, and the
# report names it.
if [ $status = 1 ] && [ $((VM_TIMEOUT_S - $(cut -d. -f1 /proc/uptime))) -gt 60 ]; then
	run_tests again --last-failed
	status=$?
fi
if [ -e "$VM_RESULTS/arm64.btf" ]; then
	"$python" tests/vm/compile_arm64.py "$VM_RESULTS/arm64.btf" >"$VM_RESULTS/arm64.log" 2>&1
	echo $? >"$VM_RESULTS/arm64.status"
fi
dmesg >"$VM_RESULTS/dmesg"
[ "$VM_INIT" != systemd ] || journalctl --no-pager >"$VM_RESULTS/journal"
echo $status >"$VM_RESULTS/status"
sync
busybox poweroff -f
