#!/bin/sh
# A guest's compiler ($MEMCG_TRACER_COMPILER): it has the host compile, which takes a second and not minutes. The host
# finds the request in the folder of results (compile_service.py).
place="$VM_RESULTS/compile/$(cut -d- -f1 /proc/sys/kernel/random/uuid)"
cat >"$place.part" && mv "$place.part" "$place.request" || exit
while [ ! -e "$place.object" ]; do
	if [ -e "$place.failed" ]; then
		cat "$place.log" >&2
		exit 1
	fi
	sleep 0.2
done
cat "$place.object"
