# Two commands: `make demo` shows what this is, `make test` proves it. Both set up what they need first.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
MINUTES ?= 30
TRACER := $(VENV)/bin/memcg-tracer
PREFIX ?= /usr/local
C_SOURCES = $(shell find bpf -name '*.c' -o -name '*.h')

.PHONY: help setup-demo setup setup-test packages packages-test packages-vm packages-stress packages-bench packages-pictures packages-deb packages-image demo install test test-varied test-lowest test-vm api-server fuzz soak stress lint bench headers pictures frames deb deb-check builder image image-check release release-check clean

help:
	@echo 'make demo      record the page-cache experiment on this kernel and explain its OOM kill'
	echo 'make install   put memcg-tracer on the PATH, also for sudo: a link in $(PREFIX)/bin (PREFIX=...: elsewhere)'
	echo 'make test      run every test that this machine can run (ARGS=... goes to pytest)'
	echo 'make test-lowest  run tests of traces, analysis and rendering with the oldest packages that pyproject allows'
	echo 'make test-varied  run the rootless tests in random order, with other clocks, zone, locale and home (as root)'
	echo 'make test-vm   run kernel tests on other kernels, in emulated machines (KERNELS="6.12 7.3": on these)'
	echo 'make api-server  build kube-apiserver from the source of Debian 12, which the tests of the cluster then run'
	echo 'make fuzz      read 200,000 damaged kernel logs, 3,000 damaged traces (ARGS="--count 1000 --seed 7": others)'
	echo 'make stress    trace the memory stressors of stress-ng, with root, and compare the kills with the kernel'
	echo 'make lint      ruff, mypy, clang-format, and the schemas of the CI services for docs/deploy/ci'
	echo 'make bench     measure what tracing and reading cost here, in 20 minutes (ARGS=--quick: in three)'
	echo 'make headers   write bpf/events.h and bpf/categories.h again, after a change in tracer/'
	echo 'make schemas   write docs/schema again, after a change of what --json prints'
	echo 'make pictures  draw the pictures of the documents again, from the recorded example and from the code'
	echo 'make frames    draw the frames of docs/examples/top.md again, with root, from live kills in a terminal'
	echo 'make image     build the container image (BASE=...: on another Debian); make image-check: here, and run it as a pod'
	echo 'make deb       build the Debian package in build/deb; make deb-check: install and purge it in a clean root'
	echo 'make release   put the files of a release into build/release, with what is in each; make release-check: make them twice'
	echo 'make clean     remove what make made, but no trace that you recorded'
	echo
	echo 'PYTHON=...     the interpreter that .venv is made with (3.11 or newer; now: $(PYTHON))'

# Packages of the distribution. BCC is the only one that the tracer needs; no kernel headers.

# $(call install_missing,PACKAGE...): nothing at all when all of them are there. Lists are fetched first, since a
# fresh machine has none; that a mirror fails to answer only matters if the package then cannot be had.
# --no-remove: never at the price of something that this machine has.
define install_missing
missing=()
for package in $(1); do
	[ "$$(dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null)" = installed ] || missing+=("$$package")
done
if [ $${#missing[@]} -gt 0 ]; then
	if [ "$$(id -u)" = 0 ]; then as_root=(env); else as_root=(sudo -n env); fi
	if ! command -v apt-get >/dev/null || ! "$${as_root[@]}" true 2>/dev/null; then
		echo "make: not installed, since that takes root and apt: $${missing[*]}" >&2
	else
		echo "make: installing $${missing[*]}" >&2
		apt=("$${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
		"$${apt[@]}" update >&2 || true
		"$${apt[@]}" install -y --no-install-recommends --no-remove -o Dpkg::Use-Pty=0 "$${missing[@]}" </dev/null >/dev/null
	fi
fi
endef

packages:
	@venv=
	if [ ! -e $(VENV)/bin/python ]; then
		$(PYTHON) -c 'import ensurepip' 2>/dev/null || venv=python3-venv
	fi
	$(call install_missing,python3-bpfcc $$venv)
	libdw=
	$(PYTHON) -c 'import ctypes; ctypes.CDLL("libdw.so.1")' 2>/dev/null || libdw=libdw1
	{ $(call install_missing,$$libdw)
	} || echo 'make: going on without libdw: callers in native code need frame pointers' >&2

# The wire records are compiled and compared (cc), and the experiment is repeated in a real container (docker),
# which only root on a kernel with BTF can trace; Prometheus scrapes what is traced; kustomize builds the manifests of
# docs/deploy; kubectl runs the requests of `kubectl oom`; Node.js shows what is seen of its heap; files of Btrfs,
# SquashFS, EROFS and XFS are told apart. What is there from another origin is left as it is. What cannot be had here is
# no reason to run no test: the one that needs it says so.
packages-test: packages
	@cc=
	command -v cc >/dev/null || cc='gcc libc6-dev'
	$(call install_missing,$$cc)
	node=
	command -v node >/dev/null || node=nodejs
	{ $(call install_missing,$$node)
	} || echo 'make: going on without Node.js' >&2
	file_systems=
	command -v mkfs.btrfs >/dev/null || file_systems=btrfs-progs
	command -v mksquashfs >/dev/null || file_systems="$$file_systems squashfs-tools"
	command -v mkfs.erofs >/dev/null || file_systems="$$file_systems erofs-utils"
	command -v mkfs.xfs >/dev/null || file_systems="$$file_systems xfsprogs"
	{ $(call install_missing,$$file_systems)
	} || echo "make: going on without $$file_systems" >&2
	kustomize=
	command -v kustomize >/dev/null || kustomize=kustomize # in Debian since 13
	{ $(call install_missing,$$kustomize)
	} || echo 'make: going on without kustomize' >&2
	kubectl=
	command -v kubectl >/dev/null || kubectl=kubectl # likewise
	{ $(call install_missing,$$kubectl)
	} || echo 'make: going on without kubectl' >&2
	if [ "$$(id -u)" = 0 ] && [ -e /sys/kernel/btf/vmlinux ] && [ "$${MEMCG_TRACER_KERNEL_TESTS:-}" != 0 ]; then
		docker=busybox-static
		command -v dockerd >/dev/null || docker+=' docker.io'
		{ $(call install_missing,$$docker)
		} || echo 'make: going on without Docker' >&2
		docker=
		command -v docker >/dev/null || docker=docker-cli # a package of its own since Debian 13
		{ $(call install_missing,$$docker)
		} || true
		prometheus=
		command -v prometheus >/dev/null || prometheus=prometheus
		{ $(call install_missing,$$prometheus)
		} || echo 'make: going on without Prometheus' >&2
		promtool=
		command -v promtool >/dev/null || promtool=promtool # a package of its own since Debian 13
		{ $(call install_missing,$$promtool)
		} || true
	fi

# Without them, tests/vm says what it misses.
packages-vm: packages
	@{ $(call install_missing,qemu-system-x86 busybox-static kmod e2fsprogs zstd)
	} || true
	{ $(call install_missing,systemd)
	} || true

packages-stress: packages
	@{ $(call install_missing,stress-ng)
	} || true

# What costs are compared with and measured on. Without them, bench says what it left out.
packages-bench: packages
	@postgresql=
	compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || postgresql=postgresql
	perf=
	command -v perf >/dev/null || perf=linux-perf
	{ $(call install_missing,$$postgresql)
	} || true
	{ $(call install_missing,$$perf)
	} || true

# A browser shows the page of `report` for its pictures, tmux the frames of `top`.
packages-pictures: packages
	@$(call install_missing,chromium fonts-noto-core tmux)

# What builds a package and an image, and the Debian to try them in.
packages-deb: packages
	@$(call install_missing,dpkg-dev debhelper python3-venv debootstrap lintian)

packages-image: packages-test
	@$(call install_missing,buildah netavark debootstrap)

# The venv. BCC comes from the distribution's folder by our own loader, whatever interpreter this is. What people type
# takes a small part of what the tests take, so it is installed first.

EXTRAS := fleet,plot,perfetto,pprof
LINTED := test,lint

# $(call pip_install,EXTRAS): the tracer with these extras, with a line each 10 s. In the mode "compat", the checkout is
# on the path of modules; otherwise each start of this Python imports a finder of setuptools, which takes 11 ms.
define pip_install
( while sleep 10 >/dev/null 2>&1; do echo "make: still installing, $$SECONDS s" >&2; done ) & saying=$$!
trap 'kill $$saying' EXIT
$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat \
    --editable '.[$(1)]'
touch $@
endef

$(VENV)/.installed-demo: pyproject.toml | packages
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.11 or newer, or say PYTHON=..." >&2; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
		echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.11 is the oldest that will do; say PYTHON=..." >&2; exit 1; }
	$(VENV)/bin/python -c 'import pip' 2>/dev/null || {
		echo "make: making $(VENV) with $$($(PYTHON) -V 2>&1)" >&2
		$(PYTHON) -m venv --clear $(VENV)
	}
	echo "make: installing the tracer and the libraries of pyproject.toml into $(VENV): once, a minute, or several if the machine is busy" >&2
	$(call pip_install,$(EXTRAS))

$(VENV)/.installed: pyproject.toml | packages $(VENV)/.installed-demo
	@echo "make: installing what the tests need besides" >&2
	$(call pip_install,test)

$(VENV)/.installed-lint: pyproject.toml | setup
	@$(call pip_install,$(LINTED))

setup-demo: packages $(VENV)/.installed-demo

setup: packages $(VENV)/.installed

setup-test: packages-test setup

# What people type

demo: setup-demo
	@failed=0
	if reason=$$($(TRACER) doctor --quiet); then
		trace=traces/demo
		before=$$(mktemp) && trap 'rm -f "$$before"' EXIT
		$(TRACER) lab page-cache -f -o $$trace || failed=$$?
		# A failed check is shown with its trace; a trace of an earlier run would answer for this one.
		[ $$failed = 0 ] || [ -e $$trace/meta.json -a ! $$trace/meta.json -ot "$$before" ] || exit $$failed
	else
		trace=traces/example
		echo "Not recorded on this machine: $$reason" >&2
		echo "So this is the recorded example, $$trace:" >&2
	fi
	echo
	$(TRACER) timeline $$trace
	echo
	$(TRACER) explain $$trace
	echo
	$(TRACER) report $$trace -f -o traces/demo.html
	command=$(TRACER) as_root='sudo '
	[ "$$(readlink -f "$$(command -v memcg-tracer)")" != "$$(readlink -f $(TRACER))" ] || command=memcg-tracer
	[ "$$(id -u)" != 0 ] || as_root=
	echo
	echo 'Next:'
	[ $$command = memcg-tracer ] ||
		printf '  %-55s  # %s\n' "$${as_root}make install" 'memcg-tracer on the PATH, also for sudo'
	printf '  %-55s  # %s\n' \
		"$$command explain $$trace -v" 'the evidence of this answer' \
		"$$as_root$$command top" 'who grows, who is killed next; q ends it' \
		"$$as_root$$command record --limit 100M -- COMMAND" 'a command, in a cgroup of its own' \
		"$$as_root$$command watch" 'a trace of the minutes before each OOM kill' \
		"$$as_root$$command explain" 'the newest kill of this machine'
	exit $$failed

# A link, so that what is edited here is what runs. Nothing else is ever replaced.
install: setup-demo
	@link=$(DESTDIR)$(PREFIX)/bin/memcg-tracer
	if [ -e "$$link" ] && [ "$$(readlink -f "$$link")" != "$$(readlink -f $(TRACER))" ]; then
		echo "make: $$link is another memcg-tracer: remove it first" >&2
		exit 1
	fi
	mkdir -p "$${link%/*}" && ln -sfn "$(abspath $(TRACER))" "$$link"
	echo "$$link"

test: setup-test
	@env -u PYTHONDONTWRITEBYTECODE $(VENV)/bin/python -m pytest -n auto $(ARGS)

# As on another machine: another phase of the clocks, zone, locale, home, and order; with more examples of each
# property. Kernel programs stamp the clock of the machine, so kernel tests are off.
test-varied: setup-test
	@env -u PYTHONDONTWRITEBYTECODE MEMCG_TRACER_KERNEL_TESTS=0 TZ=Asia/Kathmandu LC_ALL=C HOME=/nonexistent PYTHONPATH=tests \
		$(VENV)/bin/python -m support.other_clock 0.37 $(VENV)/bin/python -m pytest -n auto --random-order --hypothesis-profile thorough $(ARGS)

# The lower bounds of pyproject.toml are promises: each package is installed at its own. Warnings of old pandas are
# errors, since a reader sees them beside a report; what old packages deprecate in each other is not ours. Arrow before
# 26 imports pandas when it converts an ndarray, which costs a recorder memory and nothing else.
LOWEST := build/lowest
LOWEST_TESTS := tests/trace tests/analysis tests/render tests/test_schema.py

$(LOWEST)/.installed: pyproject.toml tests/support/lowest.py | packages
	@$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python tests/support/lowest.py >$(LOWEST)/constraints
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints --editable '.[test]'
	touch $@

test-lowest: $(LOWEST)/.installed
	@MEMCG_TRACER_KERNEL_TESTS=0 $(LOWEST)/bin/python -m pytest -n auto -k 'not pandas_is_not_imported' \
		-W ignore::DeprecationWarning -W error::UserWarning -W error::FutureWarning $(LOWEST_TESTS) $(ARGS)

test-vm: packages-vm setup
	@PYTHONPATH=tests $(VENV)/bin/python -m vm $(KERNELS)

# Takes five minutes of a processor, and 1.5 GiB on the disk meanwhile.
api-server: packages-test setup
	@if ! command -v kube-apiserver >/dev/null && [ ! -x build/api-server/kube-apiserver ]; then
		$(call install_missing,golang-go etcd-server dpkg-dev)
		PYTHONPATH=tests $(VENV)/bin/python -m support.clusters.build_api_server
	fi

fuzz: setup
	@PYTHONPATH=tests $(VENV)/bin/python tests/kernel/kmsg/fuzz.py $(ARGS)
	PYTHONPATH=tests $(VENV)/bin/python tests/trace/fuzz.py $(ARGS)

soak: setup
	@PYTHONPATH=tests $(VENV)/bin/python -m soak --minutes $(MINUTES) $(ARGS)

bench: packages-bench setup
	@env -u PYTHONDONTWRITEBYTECODE PYTHONPATH=tests $(VENV)/bin/python -m bench $(ARGS)

# 77: there is no stress-ng here.
stress: packages-stress setup
	@status=0
	PYTHONPATH=tests $(VENV)/bin/python -m stressors $(ARGS) || status=$$?
	exit $$((status == 77 ? 0 : status))

lint: setup $(VENV)/.installed-lint
	@$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(C_SOURCES)
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-actions docs/deploy/ci/action.yml
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci docs/deploy/ci/gitlab.yml

headers: setup
	@$(VENV)/bin/python -m tracer.wire bpf

schemas: setup
	@$(VENV)/bin/python docs/schemas.py

pictures: packages-pictures setup
	@$(VENV)/bin/python docs/picture.py timeline traces/page-cache
	$(VENV)/bin/python docs/picture.py explain traces/example
	$(VENV)/bin/python docs/plots.py traces/page-cache traces/thrash
	$(VENV)/bin/python docs/notebook.py
	$(VENV)/bin/python docs/screenshots.py traces/example
	$(VENV)/bin/python docs/rooms.py

frames: packages-pictures setup
	$(VENV)/bin/python docs/frames.py

# What pip is to install into the package or the image besides, such as s3fs for `watch --out s3://...`.
PACKAGES ?=

# The date of the package's newest entry. No file of a release has a later time, so the same sources make the same bytes.
RELEASED = $(shell date -d "$$(sed -n 's/^ -- .*>  //p' docs/deploy/debian/changelog | head -n 1)" +%s)

# $(call copy_sources,TREE): what is installed, whatever was run here before, and whatever the umask of the checkout was.
define copy_sources
rm -rf $(1) && mkdir -p $(1)
cp -r bpf tracer pyproject.toml README.md LICENSE $(1)
find $(1) -name __pycache__ -prune -exec rm -rf {} +
chmod -R u=rwX,go=rX $(1)
umask 022
endef

# A tree below build/, since debian/ belongs to the distribution, and dpkg wants it at the top.
deb: packages-deb
	@version=$$($(PYTHON) -c 'exec(open("tracer/version.py").read()); print(VERSION)')
	tree=build/deb/memcg-tracer-$$version
	rm -rf build/deb/memcg-tracer-* build/deb/memcg-tracer_*
	$(call copy_sources,$$tree)
	mkdir $$tree/docs
	cp docs/memcg-tracer.1 $$tree/docs
	cp -r docs/deploy/debian $$tree
	(cd $$tree && PACKAGES='$(PACKAGES)' dpkg-buildpackage -b -us -uc >../build.log 2>&1) || { tail -30 build/deb/build.log >&2; exit 1; }
	ls -l build/deb/*.deb

deb-check: deb setup
	@PYTHONPATH=tests $(VENV)/bin/python -m package

BASE ?= debian:trixie-slim

# What else the builder is to be given, such as --network=host.
IMAGE_OPTIONS ?=

BUILDER = $(firstword $(foreach one,podman buildah docker,$(shell command -v $(one))))

builder:
	@if [ -z "$(BUILDER)" ]; then
		echo 'make: an image is built by podman, buildah or docker: none of them is here' >&2
		exit 1
	fi
	$(BUILDER) info >/dev/null 2>&1 || { echo 'make: no image can be built: see what $(BUILDER) info says' >&2; exit 1; }

image: builder
	@version=$$($(PYTHON) -c 'exec(open("tracer/version.py").read()); print(VERSION)')
	dated=--timestamp=$(RELEASED) # of all that it adds to BASE
	[ $(notdir $(firstword $(BUILDER))) != docker ] || dated=
	$(BUILDER) build $$dated $(IMAGE_OPTIONS) --build-arg BASE=$(BASE) --build-arg PACKAGES="$(PACKAGES)" -f docs/deploy/Containerfile -t memcg-tracer:$$version .

# What writes the bills of materials.
TOOLS := build/tools

$(TOOLS)/.installed: pyproject.toml | packages
	@$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-python-lib[json-validation]>=11'
	touch $@

# The files that the README installs, what is in each, and their checksums. The image is an archive, so that no registry
# is needed.
release: builder deb image setup $(TOOLS)/.installed
	@version=$$($(PYTHON) -c 'exec(open("tracer/version.py").read()); print(VERSION)')
	files=build/release image=memcg-tracer_$$version.image.tar
	rm -rf $$files && mkdir -p $$files
	cp build/deb/memcg-tracer_$${version}_*.deb $$files
	$(call copy_sources,build/wheel)
	export SOURCE_DATE_EPOCH=$(RELEASED)
	$(VENV)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $$files ./build/wheel
	case $(notdir $(firstword $(BUILDER))) in
		buildah) $(BUILDER) push memcg-tracer:$$version docker-archive:$$files/$$image:memcg-tracer:$$version ;;
		*) $(BUILDER) save -o $$files/$$image memcg-tracer:$$version ;;
	esac
	$(TOOLS)/bin/python docs/deploy/sbom.py $$files/*
	(cd $$files && sha256sum * >../SHA256SUMS && mv ../SHA256SUMS .)
	ls -l $$files

release-check: release
	@rm -rf build/release-before && mv build/release build/release-before
	$(MAKE) release IMAGE_OPTIONS='$(IMAGE_OPTIONS) --no-cache'
	PYTHONPATH=tests $(VENV)/bin/python -m release

image-check: packages-image setup
	@PYTHONPATH=tests $(VENV)/bin/python -m image

clean:
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis traces/demo traces/demo.html
	find . -name __pycache__ -prune -exec rm -rf {} +
