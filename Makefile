# `make run` boots Quarry and `make test` checks everything, on a fresh machine too: what they lack they install.
# `make help` lists the rest.

# Where rustup puts cargo, for a shell that has not heard of it yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)

TARGET_DIR ?= $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
KERNEL = $(TARGET_DIR)/aarch64-unknown-none-softfloat/release/quarry
HOST = $$(rustc -vV | sed -n 's/^host: //p')
HOST_FLAGS = --target $(HOST) --no-default-features --features host

.PHONY: help
help:
	@sed -n 's/^## //p' Makefile

## make run       boot in QEMU; MACHINE='board=… smp=…' names another machine (docs/testing.md)
.PHONY: run
run: setup
	cargo run --quiet --release --bin quarry -- $(MACHINE)

## make test      everything that CI checks; the last line counts it
.PHONY: test
test:
	@tools/setup.sh test
	@tools/suite.sh

## make bench      what each operation costs, beside Linux, the peers and the targets; BENCH=name for some (docs/measuring.md)
.PHONY: bench
bench: setup
	cargo bench -p quarry-benches --features peers --bench kernel -- $(BENCH) '--machine=$(MACHINE)'

## make bench-readme   and put the tables into README.md and docs/performance.md
.PHONY: bench-readme
bench-readme: bench
	tools/runner.sh bench-readme $(TARGET_DIR)/bench/overview.md README.md docs/performance.md

## make budget     every figure into benches/budget.tsv; REASON='…' where one rises (docs/measuring.md)
.PHONY: budget
budget: setup
	cargo bench --quiet --profile release -p quarry-benches --bench kernel -- '--new-budget=$(REASON)'

## make bench-host     the heaps against each other in real time, on this machine, with one thread and two
.PHONY: bench-host
bench-host: toolchain
	cargo bench -p quarry-benches $(HOST_FLAGS),peers --bench host -- $(BENCH)

## make public-names   the names that other crates see into docs/public-names.txt
.PHONY: public-names
public-names: toolchain
	cargo doc --quiet --no-deps -p quarry --features kernel
	tools/runner.sh public-names --write $(TARGET_DIR)/aarch64-unknown-none-softfloat/doc/quarry docs/public-names.txt

## make soak      all allocators at random on four CPUs with interrupts; SOAK_OPS=10000000 SOAK_SEED=1 SOAK_SECONDS=0 (docs/testing.md)
.PHONY: soak
soak: setup
	QUARRY_APPEND='soak_ops=$(SOAK_OPS) soak_seed=$(SOAK_SEED) soak_seconds=$(SOAK_SECONDS)' \
		cargo test --quiet --release --test kernel -- --exact soak::soak --ignored --nocapture

## make cache-model   boot under a model of the caches, and with each clean, invalidation and barrier left out (docs/testing.md)
.PHONY: cache-model
cache-model: setup
	tools/cache-model/run.sh "$$(cargo test --quiet --no-run --test kernel --message-format json | \
		sed -n 's/.*"kind":\["test"\].*"executable":"\([^"]*\)".*/\1/p')"

GDB_KERNEL = $(TARGET_DIR)/aarch64-unknown-none-softfloat/debugger/quarry
## make gdb       boot under a debugger that knows the structures (docs/debugging.md); SMP=4 MEM=1G
.PHONY: gdb
gdb: setup
	@tools/setup.sh gdb
	cargo build --quiet --profile debugger --bin quarry
	@SMP=$(or $(SMP),4) MEM=$(or $(MEM),1G) tools/gdb/run.sh $(GDB_KERNEL)

.PHONY: gdb-test
gdb-test: setup
	@tools/setup.sh gdb
	cargo build --quiet --profile debugger --bin quarry
	SMP=2 MEM=128M tools/gdb/run.sh $(GDB_KERNEL) -batch -x tools/gdb/test.py

## make report    what the kernel records of itself under a stress, as one page: target/report.html (docs/report.md)
.PHONY: report
report: setup
	cargo build --quiet --release --bin quarry
	tools/report/run.sh $(KERNEL) $(TARGET_DIR)/report.html

## make report-test   and opens it in Chromium, which reads its numbers back and takes pictures: target/report-light.png, -dark.png
.PHONY: report-test
report-test: report
	@tools/setup.sh report
	tools/report/test.sh $(TARGET_DIR)/report.html

## make pictures  docs/pictures/fault-report.svg and map.svg, from real runs
.PHONY: pictures
pictures: setup
	tools/report/pictures.sh docs/pictures

## make setup     only install what is missing
.PHONY: setup
setup:
	@tools/setup.sh run

## make image     the flat Image that boot loaders take: target/Image
.PHONY: image
image: kernel
	tools/runner.sh image $(KERNEL) target/Image

.PHONY: toolchain
toolchain:
	@tools/setup.sh build

.PHONY: kernel
kernel: toolchain
	cargo build --release --bin quarry
	@mkdir -p target

## make rpi4      the files for a Raspberry Pi 4's SD card: target/rpi4/
.PHONY: rpi4
rpi4: kernel
	tools/rpi4.sh $(KERNEL) target/rpi4

## make rpi4-sd   a whole SD card with the Pi's firmware: target/rpi4-sd.img
.PHONY: rpi4-sd
rpi4-sd: rpi4
	@tools/setup.sh sd
	tools/rpi4-sd.sh target/rpi4 target/rpi4-sd.img

## make rpi4-test   the kernel's tests for a Raspberry Pi 4's card: target/rpi4-test/; SERIAL=port or log, NAMES='…' (docs/rpi4.md)
.PHONY: rpi4-test
rpi4-test: toolchain
	elf=$$(tools/image-elf.sh tests) && tools/rpi4.sh rpi4-image "$$elf" target/rpi4-test $(NAMES)
	$(if $(SERIAL),tools/runner.sh rpi4-log $(SERIAL))

## make rpi4-bench   the benchmarks' rows in cycles and nanoseconds, for such a card: target/rpi4-bench/; SERIAL=, BENCH=name
.PHONY: rpi4-bench
rpi4-bench: toolchain
	elf=$$(tools/image-elf.sh benches) && tools/rpi4.sh rpi4-bench-image "$$elf" target/rpi4-bench $(BENCH)
	$(if $(SERIAL),tools/runner.sh rpi4-log $(SERIAL))

## make memmap DTB=file   what the kernel would make of a device tree, as JSON
.PHONY: memmap
memmap: toolchain
	@tools/memmap.sh $(abspath $(DTB))

## make miri, make fuzz   the slow checks, on nightly; not part of make test; TEST=name chooses
.PHONY: miri
miri: toolchain
	MIRIFLAGS="-Zmiri-disable-isolation $(MIRIFLAGS)" cargo +nightly miri test $(HOST_FLAGS) --test host $(TEST)

# Which rules, and why: docs/testing.md.
MIRI_SLAB = -Zmiri-tree-borrows -Zmiri-tree-borrows-no-precise-interior-mut -Zmiri-permissive-provenance \
	-Zmiri-disable-weak-memory-emulation
# Tests that have been seen to end.
MIRI_SLAB_TESTS = blocks cache_model caches::a_cache caches::objects_are cpus debug::a_byte debug::a_double heap \
	kmalloc::an_array kmalloc::boot kmalloc::every kmalloc::no_bytes kmalloc::resizing kmalloc::sensitive model report \
	stress::batches typed::a_box typed::a_value
## make miri-slab  the slab allocator under Miri, aliasing and races included; TEST=name chooses (docs/testing.md)
.PHONY: miri-slab
miri-slab: toolchain
	$(MAKE) miri TEST='-- $(or $(TEST),$(MIRI_SLAB_TESTS:%=slab::%))' MIRIFLAGS='$(MIRI_SLAB)'

.PHONY: fuzz
fuzz: toolchain
	tools/fuzz.sh $(TEST)

## make clippy, make fmt, make doc
.PHONY: clippy
clippy: toolchain
	cargo clippy --workspace --features quarry-benches/peers --lib --bins --tests --benches -- -D warnings
	cargo clippy -p quarry-benches --benches -- -D warnings
	cargo clippy --lib --no-default-features --target aarch64-unknown-none -- -D warnings
	cargo clippy --workspace --all-targets $(HOST_FLAGS),quarry-benches/peers -- -D warnings

.PHONY: fmt
fmt: toolchain
	cargo fmt

.PHONY: doc
doc: toolchain
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items

## make book      the guide as a book in target/book/html (needs mdbook)
.PHONY: book
book:
	@tools/book.sh $(TARGET_DIR)/book

.PHONY: clean
clean:
	cargo clean
