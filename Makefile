# Thin: each target is a few commands that can as well be typed. `make help` lists them.
#
# Needs Rust (Cargo.toml says which), Python 3 with pip and venv, and a C compiler; all else is
# fetched into .runtime/, .venv/, target/ and guest/.

PYTHON ?= python3
# The demo and the tests look for target/release/rerankd, and guest/build.sh for guest/target.
unexport CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR CARGO_BUILD_TARGET

CARGO_DENY := .ci/tool cargo-deny
EXPORT := .venv/export/bin/python models/export

.DEFAULT_GOAL := help
.PHONY: help build runtime policies faulty demo test test-guest test-long check check-format \
	check-lints check-docs check-dependencies check-spelling audit bench models eval \
	record-elasticsearch docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-22s%s\n", $$1, $$2 }' Makefile

build: runtime policies ## build the server, the bundled policies, and fetch ONNX Runtime
	cargo build --release -p rerankd

runtime: ## fetch ONNX Runtime's library into .runtime/onnxruntime
	$(PYTHON) scripts/fetch-onnxruntime.py

policies: ## build guest/policies/* into guest/dist/policies
	guest/build.sh policies

faulty: ## build the guests that break the rules, for the host's tests
	guest/build.sh faulty

demo: build ## build, start the server, rerank a page of Elasticsearch, stay until Ctrl-C
	exec $(PYTHON) demo/demo.py --binary target/release/rerankd

test: build faulty test-guest ## build what the tests need and run all of them
	cargo test --release --workspace

# In the development profile: it shares its dependencies with guest/componentize.
test-guest: ## run the native tests of the SDK and the policies
	cd guest && cargo test

test-long: build faulty ## run the host's tests together with the long ones
	RERANKD_LONG_TESTS=1 cargo test --release --workspace

check: check-format check-lints check-docs check-dependencies check-spelling ## everything that needs no running

check-format: ## is the code formatted?
	cargo fmt --all --check
	cd guest && cargo fmt --all --check

# In the profile of the build, so that build scripts and macros are compiled once.
check-lints: ## clippy, with warnings as errors
	cargo clippy --release --workspace --all-targets -- -D warnings
	cd guest && cargo clippy --workspace --all-targets -- -D warnings

check-docs: ## do the docs build without a warning?
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps
	cd guest && RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

check-dependencies: ## licences, banned crates and sources of the dependencies
	$(CARGO_DENY) --locked check bans licenses sources
	$(CARGO_DENY) --locked --config deny.toml --manifest-path guest/Cargo.toml \
		check --allow license-not-encountered bans licenses sources

check-spelling: ## typos
	.ci/tool typos

audit: ## known vulnerabilities of the dependencies (fetches the advisory database)
	$(CARGO_DENY) --locked check advisories
	$(CARGO_DENY) --locked --config deny.toml --manifest-path guest/Cargo.toml check advisories

bench: build ## measure, as ratios in one run, into docs/benchmarks.md
	tests/bench/run.sh

models: .venv/export/requirements.txt ## make models/* anew, those too that are not committed
	$(EXPORT)/export.py

eval: models ## measure ranking quality; DATA=folder has the judged searches
	$(EXPORT)/evaluate.py $(if $(DATA),--data $(DATA))

.venv/export/requirements.txt: models/export/requirements.txt
	$(PYTHON) -m venv .venv/export
	.venv/export/bin/pip install --quiet --no-deps --require-hashes -r $<
	cp $< $@

record-elasticsearch: ## record tests/fixtures/elasticsearch anew from a real Elasticsearch (needs Maven, Java)
	$(PYTHON) scripts/record-elasticsearch.py $(if $(DATA),--data $(DATA))

# --workspace, so that dependencies have the features that they have in `make test`.
docs: build ## write docs/configuration.md anew
	RERANKD_WRITE_DOCS=1 cargo test --release --workspace --test generated_docs

clean: ## remove everything that was built or fetched
	rm -rf target guest/target guest/dist .runtime .venv
