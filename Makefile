# `make` alone lists what can be made. Every target that needs the environment creates or updates it first.

.DEFAULT_GOAL := help
.PHONY: help env bench test test-browser test-ray docs docs-commands screenshots test-oldest test-newest demos train train-pixels train-human human-table profile block-times latency-gpu sim-speed render-speed recording-cost executor-cost shards-beside-one expert-success stress stress-images stress-figures stress-times training-curves tokenizer-speed faults mutants latency latency-trials train-speed lerobot-agreement numerics error-rates damage-trials lint format lock clean

# What `make test-oldest` and `make test-newest` set otherwise.
WANTED := 3.12
LOCK := requirements.lock
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# There while packages are being installed: found at the start, it tells of an interrupted set-up.
UNFINISHED := $(VENV)/.unfinished

# To be set on the command line: make bench EPISODES=1000, make test ARGS="-k gate".
EPISODES ?=
REPORT ?= il-bench-report
JOBS ?= 2
ARGS ?=
POLICIES ?= bc bet vqbet act diffusion
PIXEL_POLICIES ?= bc vqbet act diffusion
DEMOS := runs/demos
# What `make train` trains on: empty, what the shipped policies were trained on.
DATA ?=
on_dagger := bc act vqbet diffusion

# No test and no benchmark needs the network or a screen.
export HF_HUB_OFFLINE := 1
export SDL_VIDEODRIVER := dummy

# The human demonstrations, where their replay buffer lies beside the checkout.
ifneq ($(wildcard ../shared/pusht/human_demos.npz),)
export IL_BENCH_HUMAN_DATA ?= $(abspath ../shared/pusht)
endif

is_right := import os, sys; "%d.%d" % sys.version_info[:2] == "$(WANTED)" or sys.exit(1)
candidates = $(or $(PYTHON),python$(WANTED) python3 python $(BIN)/python)
# PYENV_VERSION: of the versions that pyenv has, whatever .python-version says.
found = $(shell for p in $(candidates); do \
    PYENV_VERSION=$(WANTED) "$$p" -c '$(is_right); print(os.path.realpath(sys.executable))' 2>/dev/null && break; done)
missing = il_bench needs Python $(WANTED) (looked for $(candidates)): install it, or name it with 'make PYTHON=/path/to/python$(WANTED)'
python = $(or $(found),$(error $(missing)))

oldest := VENV=.venv-oldest LOCK=.ci/oldest.lock
newest := VENV=.venv-newest WANTED=3.13

# A package index of CPU builds of torch, without CUDA's 5 GB: make env TORCH=cpu TORCH_INDEX=ADDRESS
TORCH ?=
TORCH_INDEX ?=
ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH is $(TORCH); leave it out, or say TORCH=cpu)
endif
ifeq ($(TORCH)-$(TORCH_INDEX),cpu-)
$(error TORCH=cpu needs the address of a package index with CPU builds of torch: make env TORCH=cpu TORCH_INDEX=ADDRESS)
endif
# Neither CUDA's libraries nor triton; of torch and torchvision the same versions, from the other index.
of_cuda := ^(nvidia-|cuda-|triton==)
with_torch := ^(torch|torchvision)==
# Pinned, but installed by `make test-ray` only: 210 MB that few need.
on_demand := ^ray==

pip := $(BIN)/python -m pip install -qq --disable-pip-version-check
with_ray = $(BIN)/python -c 'import ray' 2>/dev/null || $(pip) --no-deps "$$(sed -n 's/^\(ray==[0-9.]*\).*/\1/p' $(LOCK))"

$(READY): pyproject.toml $(LOCK)
	@if [ -e $(UNFINISHED) ] || ! $(BIN)/python -c '$(is_right)' 2>/dev/null; then \
	    echo "Creating $(VENV) from $(LOCK): a minute or two and 6 GB, once."; \
	    rm -rf $(VENV) && mkdir $(VENV) && touch $(UNFINISHED) && "$(python)" -m venv $(VENV); \
	else \
	    echo "Updating $(VENV): pyproject.toml or $(LOCK) is newer."; \
	    touch $(UNFINISHED); \
	fi
ifeq ($(TORCH),cpu)
	@grep -E '$(with_torch)' $(LOCK) | sed 's/ ;.*//' > $(VENV)/torch.txt
	@grep -vE '$(of_cuda)|$(with_torch)|$(on_demand)' $(LOCK) > $(VENV)/others.txt
	@$(pip) --no-deps --index-url $(TORCH_INDEX) -r $(VENV)/torch.txt
	@$(pip) --no-deps -r $(VENV)/others.txt
else
	@grep -vE '$(on_demand)' $(LOCK) > $(VENV)/all.txt
	@# uv is faster than pip, which does it where uv cannot be had or finds no packages.
	@uv=$$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' $(LOCK)); \
	if [ -n "$$uv" ] && $(pip) "$$uv" 2>/dev/null && \
	    $(BIN)/uv pip install -q --no-deps --python $(BIN)/python -r $(VENV)/all.txt 2>/dev/null; then :; \
	else $(pip) --no-deps -r $(VENV)/all.txt; fi
endif
	@rm $(UNFINISHED)
	@$(pip) --no-deps --no-build-isolation -e .
	@touch $(READY)

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r target text; do \
	    printf '  make %-17s %s\n' "$$target" "$$text"; done

env: $(READY) ## create or update .venv from requirements.lock (TORCH=cpu TORCH_INDEX=ADDRESS: without CUDA)

bench: $(READY) ## roll every shipped policy out until its gates are decided: table, report.json, page
	@echo "Rolling every shipped policy out on $(or $(EPISODES),as many) PushT episodes$(if $(EPISODES),;, as its gates need;) the report goes to $(REPORT)/."
	@status=0; \
	$(BIN)/pytest --benchmark -rfE il_bench/suite $(if $(EPISODES),--il-episodes $(EPISODES)) --il-report $(REPORT) $(ARGS) || status=$$?; \
	if [ $$status -eq 6 ]; then \
	    echo "Exit 6: a required gate is INCONCLUSIVE: nothing failed, too little is shown."; \
	fi; \
	exit $$status

test: export OMP_NUM_THREADS := 1
test: $(READY) ## run the unit and property tests (ARGS="-m slow": the slow ones)
	@echo "Running the tests in $(JOBS) processes."
	@$(BIN)/pytest -n $(JOBS) $(ARGS)

test-browser: export OMP_NUM_THREADS := 1
test-browser: $(READY) ## drive the page in Chromium (apt-get install chromium)
	@$(BIN)/pytest -m browser tests/report/test_browser.py $(ARGS)

test-ray: export OMP_NUM_THREADS := 1
test-ray: $(READY) ## run the tests that start Ray clusters on this machine (installs ray; 4 minutes)
	@$(with_ray)
	@$(BIN)/pytest -m ray tests/rollout/test_cluster.py $(ARGS)

docs: $(READY) ## build the documentation into site/, its reference pages anew from the code
	@$(BIN)/python benchmarks/reference.py
	@$(BIN)/zensical build --strict

docs-commands: $(READY) ## run every command and block of Python in README and docs, page by page (ARGS="-k tutorials")
	@$(BIN)/python -m tests.docs.blocks
	@$(BIN)/pytest -m slow tests/docs $(ARGS)

screenshots: $(READY) ## take the documentation's pictures of the page in REPORT, in Chromium
	@$(BIN)/python -W ignore benchmarks/screenshots.py $(REPORT) $(ARGS)

test-oldest: ## run the tests with the oldest versions that are supported, in .venv-oldest
	@$(MAKE) --no-print-directory $(oldest) test

test-newest: ## run the tests with the newest Python that is supported, in .venv-newest
	@$(MAKE) --no-print-directory $(newest) test

# 1,000 clean episodes of the expert and 1,000 disturbed ones.
$(DEMOS)/expert: | $(READY)
	@$(BIN)/il-bench demos make --episodes 1000 --seed 0 --workers $(JOBS) --output $(DEMOS)/clean
	@$(BIN)/il-bench demos make --episodes 1000 --seed 2000 --noise 0.1 --workers $(JOBS) --output $(DEMOS)/disturbed
	@$(BIN)/il-bench demos merge $(DEMOS)/clean $(DEMOS)/disturbed --output $(DEMOS)/expert

# The same, and what the expert does where a policy trained on them is lost (DAgger).
$(DEMOS)/dagger: | $(READY) $(DEMOS)/expert
	@echo "Training the policy that drives before the expert takes over, into runs/driver."
	@$(BIN)/il-bench train il_bench/train/recipes/driver.toml --data $(DEMOS)/expert --seed 1 --output runs/driver \
	    --eval-every 0 $$([ -e runs/driver/checkpoints/last ] && echo --resume)
	@$(BIN)/il-bench demos make --episodes 6000 --seed 10000 --from-policy runs/driver --takeover-max 299 \
	    --only-unsolved --workers $(JOBS) --output $(DEMOS)/unsolved
	@$(BIN)/il-bench demos merge $(DEMOS)/expert $(DEMOS)/unsolved --output $(DEMOS)/dagger

demos: export OMP_NUM_THREADS := 1
demos: $(DEMOS)/expert $(DEMOS)/dagger ## make the demonstrations that the shipped policies are trained on (an hour)

train: export OMP_NUM_THREADS := 1
train: $(READY) $(if $(DATA),,$(DEMOS)/expert $(if $(filter $(on_dagger),$(POLICIES)),$(DEMOS)/dagger)) ## train every shipped policy again, seed 1, from nothing, and measure it
	@echo "Training $(POLICIES), one after the other, into runs/; interrupted runs are resumed."
	@for policy in $(POLICIES); do \
	    run=runs/$$policy; \
	    case " $(on_dagger) " in *" $$policy "*) data=$(DEMOS)/dagger;; *) data=$(DEMOS)/expert;; esac; \
	    $(BIN)/il-bench train $$policy --data $(or $(DATA),$$data) --seed 1 --output $$run \
	        $$([ -e $$run/checkpoints/last ] && echo --resume) || exit $$?; \
	    mkdir -p il_bench/zoo/$$policy; \
	    cp $$run/checkpoints/last/pretrained_model/* $$run/train_log.csv il_bench/zoo/$$policy/; \
	    $(BIN)/il-bench evaluate $$policy --seeds test --episodes 1000 --workers $(JOBS) \
	        --output il_bench/zoo/$$policy/measured.json || exit $$?; \
	done

# An eye, and on it every policy that sees images. 10000: the seed of the eye that is shipped.
train-pixels: export OMP_NUM_THREADS := 1
train-pixels: $(READY) $(DEMOS)/dagger ## train an eye and the policies on images that see with it, from nothing
	@echo "Training an eye, then $(PIXEL_POLICIES) on it, one after the other, into runs/pixels/; interrupted runs are resumed."
	@$(BIN)/il-bench train eye --seed 10000 --output runs/pixels/eye \
	    $$([ -e runs/pixels/eye/last.pt ] && echo --resume)
	@for policy in $(PIXEL_POLICIES); do \
	    run=runs/pixels/$$policy; \
	    $(BIN)/il-bench train $$policy --track pixels --eye runs/pixels/eye --data $(DEMOS)/dagger --seed 1 --output $$run \
	        $$([ -e $$run/checkpoints/last ] && echo --resume) || exit $$?; \
	    $(BIN)/il-bench evaluate $$run --seeds test --episodes 1000 --workers $(JOBS) \
	        --output $$run/measured.json || exit $$?; \
	done

# The shared data: the folder that IL_BENCH_HUMAN_DATA names.
$(DEMOS)/human-aligned: | $(READY)
	@$(BIN)/il-bench demos align human --mirror --output $@

results := benchmarks/results/human-data

train-human: export OMP_NUM_THREADS := 1
train-human: $(READY) $(DEMOS)/human-aligned ## train every policy on the human demonstrations, which IL_BENCH_HUMAN_DATA names, and measure it
	@echo "Training $(POLICIES), one after the other, into runs/human/; interrupted runs are resumed."
	@for policy in $(POLICIES); do \
	    run=runs/human/$$policy; \
	    $(BIN)/il-bench train il_bench/train/recipes/human/$$policy.toml --data $(DEMOS)/human-aligned --seed 1 --output $$run \
	        $$([ -e $$run/checkpoints/last ] && echo --resume) || exit $$?; \
	    $(BIN)/pytest --benchmark il_bench/suite/test_success.py --il-policy $$policy=$$run --il-seeds test --il-episodes 1000 \
	        --il-baselines $(results).json --il-update-baselines --il-report $$run/report || exit $$?; \
	    cp $$run/checkpoints/last/pretrained_model/training.json $(results)/$$policy.json; \
	done

human-table: $(READY) ## each policy on the expert's and on the human demonstrations, from benchmarks/results/
	@$(BIN)/python benchmarks/human_data.py

profile: $(READY) ## where the seconds of whole commands go, imports apart (6 minutes; ARGS="--only bench")
	@$(BIN)/python benchmarks/command_times.py $(ARGS)

block-times: $(READY) ## where a block of episodes spends its time, for each policy (3 minutes; ARGS="--before DIR")
	@$(BIN)/python benchmarks/block_times.py $(ARGS)

sim-speed: $(READY) ## steps per second beside gym-pusht's and bare physics, in one run
	@$(BIN)/python -W ignore benchmarks/sim_speed.py $(ARGS)

render-speed: $(READY) ## frames per second beside gym-pusht's, in one run
	@$(BIN)/python -W ignore benchmarks/render_speed.py $(ARGS)

recording-cost: export OMP_NUM_THREADS := 1
recording-cost: $(READY) ## what recording every step costs a rollout, in one run (2 minutes; ARGS="--policy act")
	@$(BIN)/python -W ignore benchmarks/recording_cost.py $(ARGS)

shards-beside-one: export OMP_NUM_THREADS := 1
shards-beside-one: $(READY) ## compare the merge of eight shards with one run, byte by byte (10 minutes; ARGS="--policy bc")
	@$(BIN)/python -W ignore benchmarks/shards_beside_one.py $(ARGS)

executor-cost: export OMP_NUM_THREADS := 1
executor-cost: $(READY) ## what processes and Ray cost beside one process, and a task's overhead, in one run (installs ray; 10 minutes)
	@$(with_ray)
	@$(BIN)/python -W ignore benchmarks/executor_cost.py $(ARGS)

expert-success: export OMP_NUM_THREADS := 1
expert-success: $(READY) ## let the expert solve 1,000 validation starts in gym-pusht itself (3 minutes)
	@$(BIN)/python -W ignore benchmarks/expert_success.py $(ARGS)

stress: export OMP_NUM_THREADS := 1
stress: $(READY) ## roll every shipped policy and the expert out under stress, on 200 test seeds (an hour; goes on where it was interrupted)
	@$(BIN)/il-bench stress --seeds test --output benchmarks/results/stress.json --resume $(ARGS)

stress-images: export OMP_NUM_THREADS := 1
stress-images: $(READY) ## the arms of the camera's image, for the policies on images, on 50 test seeds (goes on likewise)
	@$(BIN)/il-bench stress $(addsuffix @pixels,$(PIXEL_POLICIES)) --arm darker --arm blur --arm shift --arm occlusion \
	    --seeds test --episodes 50 --output benchmarks/results/stress-images.json --resume $(ARGS)

stress-figures: $(READY) ## draw the stress curves and print all tables of stress, from benchmarks/results/
	@$(BIN)/python benchmarks/stress_figures.py $(ARGS)

stress-times: export OMP_NUM_THREADS := 1
stress-times: $(READY) ## the same, after timing 1,000 new chunks of every shipped policy
	@$(BIN)/python benchmarks/stress_figures.py --time $(ARGS)

training-curves: $(READY) ## draw how the shipped policies learned, from their logs (ARGS=runs/mine: beside it)
	@$(BIN)/il-bench report curves $(ARGS)

lerobot-agreement: $(READY) ## episodes and speed beside lerobot-eval's for act, diffusion and vqbet (10 minutes)
	@$(BIN)/python -W ignore benchmarks/lerobot_agreement.py $(ARGS)

numerics: $(READY) ## what bfloat16 and torch.compile gain in rollouts and cost in success, over 1,000 validation episodes
	@$(BIN)/python -W ignore benchmarks/numerics.py $(ARGS)

tokenizer-speed: export OMP_NUM_THREADS := 1
tokenizer-speed: $(READY) ## encode and decode of residual VQ beside LeRobot's, on one core, in one run
	@$(BIN)/python -W ignore benchmarks/tokenizer_speed.py $(ARGS)

latency: export OMP_NUM_THREADS := 1
latency: $(READY) ## how long a robot waits for each shipped policy, as a table (2 minutes)
	@$(BIN)/pytest --benchmark il_bench/suite/test_latency.py --il-thorough --il-latency short --il-report $(REPORT) $(ARGS) && \
	    $(BIN)/il-bench report latency $(REPORT)/report.json

latency-gpu: $(READY) ## how long a robot waits for each shipped policy on a GPU (8 minutes; ARGS="--device cpu")
	@$(BIN)/python -W ignore benchmarks/latency_gpu.py $(ARGS)

latency-trials: export OMP_NUM_THREADS := 1
latency-trials: $(READY) ## is il-bench compare's gate quiet and sharp? beside pytest-benchmark's rule (30 minutes)
	@$(BIN)/python -W ignore benchmarks/latency_trials.py $(ARGS)

train-speed: $(READY) ## training steps per second beside lerobot-train's, in one run
	@$(BIN)/python -W ignore benchmarks/train_speed.py $(ARGS)

faults: export OMP_NUM_THREADS := 1
faults: $(READY) ## plant faults into the quantizers, one at a time, and see which test finds each
	@$(BIN)/python benchmarks/faults.py --jobs $(JOBS) $(ARGS)

mutants: export OMP_NUM_THREADS := 1
mutants: $(READY) ## let mutmut change the tokenizers, one expression at a time; survivors and why (1 hour)
	@$(BIN)/python benchmarks/mutants.py --jobs $(JOBS) $(ARGS)

damage-trials: $(READY) ## damage a shipped policy in three ways and see what the gate says (4 minutes)
	@$(BIN)/python benchmarks/damage.py $(ARGS)

error-rates: export OMP_NUM_THREADS := 1
error-rates: $(READY) ## simulate how often the gate is wrong and how many episodes it takes (ARGS="--seed 1")
	@echo "Simulating the gate, some minutes on one core."
	@$(BIN)/python benchmarks/error_rates.py $(ARGS)

lint: $(READY) ## check style with ruff, types with mypy --strict, and the workflows with zizmor and their schemas
	@echo "Checking style with ruff, types with mypy, and the workflows."
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/zizmor --offline --quiet --persona=pedantic .github
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions .github/actions/*/action.yml

format: $(READY) ## rewrite the code as `make lint` wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

resolve := uv pip compile pyproject.toml --quiet --all-extras --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "make lock" --python-version 3.12

lock: $(READY) ## resolve pyproject.toml anew into both lock files, keeping what still fits
	@$(BIN)/$(resolve) --universal --output-file requirements.lock $(ARGS)
	@cp requirements.lock .ci/oldest.lock
	@$(BIN)/$(resolve) --python-platform linux --constraint .ci/oldest.in --output-file .ci/oldest.lock

clean: ## remove caches, builds and reports, not the environment
	@rm -rf build dist $(REPORT) site .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
