# Two commands on a fresh machine (no ROS, no GPU): `make demo` and `make test`. Both are idempotent.
#
#   PYTHON=python3.11        the interpreter of the virtual environment
#   TORCH='torch==2.13.0'    what pip installs as torch (tests and training only). Where a plain install would
#                            bring gigabytes of CUDA packages, add pip's option for a source of CPU builds here.
#   BAG=path                 `make demo` on your own recording (rosbag2 folder, .mcap or .db3)
#   ARGS='...'               more options for `mos demo`, see `mos demo --help`

SHELL := /bin/bash
PYTHON ?= python3
TORCH ?= torch==2.13.0
BAG ?= test/bags/demo
ARGS ?=
VENV := $(CURDIR)/.venv
RUN := . $(VENV)/bin/activate && AMENT_PREFIX_PATH=$(VENV)
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check install
INTERFACES := mos_msgs test/ros/interfaces/event_camera_msgs test/ros/interfaces/dvs_msgs
INTERFACE_FILES := $(foreach dir,$(INTERFACES),$(wildcard $(dir)/*.* $(dir)/msg/* $(dir)/srv/*))

.PHONY: demo test env env-test generate lint clean
demo: env
	@$(RUN) mos demo $(BAG) --out out/demo $(ARGS)

test: env-test
	@$(RUN) python -m pytest -q test

env: $(VENV)/.done-ros $(VENV)/.done-messages $(VENV)/.done-package
env-test: env $(VENV)/.done-test

$(VENV)/bin/python:
	@$(PYTHON) .ci/check_machine.py
	@echo '== virtual environment'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.done-ros: requirements/ros.txt requirements/run.txt | $(VENV)/bin/python
	@echo '== ROS 2 and runtime packages (about a minute)'
	@$(PIP) -r requirements/ros.txt -r requirements/run.txt
	@command -v cmake >/dev/null || $(PIP) cmake
	@command -v ninja >/dev/null || $(PIP) ninja
	@touch $@

$(VENV)/.done-messages: $(INTERFACE_FILES) .ci/ros_wheels.cmake $(VENV)/.done-ros
	@echo '== messages, with colcon (about half a minute)'
	@mkdir -p build && $(RUN) colcon --log-base build/log build --merge-install --install-base $(VENV) --build-base build \
	  --base-paths $(INTERFACES) --event-handlers console_direct- console_cohesion- status- summary- --cmake-args -GNinja \
	  -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/.ci/ros_wheels.cmake \
	  > build/messages.log 2>&1 || { tail -n 40 build/messages.log; exit 1; }
	@touch $@

$(VENV)/.done-package: setup.py setup.cfg package.xml $(VENV)/.done-ros
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.done-test: requirements/test.txt $(VENV)/.done-package
	@echo '== torch and test packages (about a minute)'
	@$(PIP) $(TORCH) 'setuptools<80'
	@$(PIP) -r requirements/test.txt 'setuptools<80'
	@touch $@

generate: env
	@$(RUN) python -m mos_perception.commands.generate

lint: env-test
	@$(RUN) python -m ruff check .

clean:
	rm -rf build install log out
