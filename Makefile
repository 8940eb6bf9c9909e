# Two commands on a fresh machine (no ROS, no GPU): `make demo` and `make test`. Both are idempotent.
# `make constraints` writes requirements/constraints.txt anew; `make env-newest` tries the newest of all ranges.
#
#   PYTHON=python3.11        the interpreter of the virtual environment
#   TORCH='torch==2.13.0'    what pip installs as torch (tests and training only). Where a plain install would
#                            bring gigabytes of CUDA packages, add pip's option for a source of CPU builds here.
#   CONSTRAINTS=             empty: the newest of the ranges in requirements/. The exact versions of constraints.txt
#                            hold only for the Python that its first line names; any other gets the ranges by itself.
#   BAG=path                 `make demo` on your own recording (rosbag2 folder, .mcap or .db3)
#   MODEL=gmos_nano          `make demo` with another model
#   ARGS='...'               more options for `mos demo`, see `mos demo --help`
#
# `make ros` builds both packages beside a ROS distribution whose setup.bash is sourced:
#
#   WORKSPACE=~/ws           where build/ install/ log/ go; the default is here
#   ROS_PYTHON=python3.12    the distribution's interpreter; the default is the system's
#   EXTRA='pycuda'           more for pip, as '-r requirements/test.txt' (`colcon test`) or TensorRT's wheels
#   COLCON='--symlink-install'   more options for colcon build

SHELL := /bin/bash
PYTHON ?= python3
TORCH ?= torch==2.13.0
BAG ?= test/bags/demo
MODEL ?=
ARGS ?=
BUILD := build
VENV := $(CURDIR)/.venv
PINNED := requirements/constraints.txt
CONSTRAINTS ?= $(shell grep -qs "Python $$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')$$" \
                 $(PINNED) && echo $(PINNED))
RUN := . $(VENV)/bin/activate && AMENT_PREFIX_PATH=$(VENV)
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check install $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
INTERFACES := mos_msgs $(addprefix test/ros/interfaces/,event_camera_msgs dvs_msgs tf2_msgs vision_msgs)
ROS_PYTHON ?= /usr/bin/python3
ROS_VENV := $(CURDIR)/.venv-ros
WORKSPACE ?= .
EXTRA ?=
COLCON ?=
FREEZE := -m pip --disable-pip-version-check freeze --all --exclude torch --exclude-editable \
          $(foreach dir,$(INTERFACES),--exclude $(notdir $(dir)))
INTERFACE_FILES := $(foreach dir,$(INTERFACES),$(wildcard $(dir)/*.* $(dir)/msg/* $(dir)/srv/*))

.PHONY: demo test env env-test env-newest constraints ros ros-env generate lint clean
demo: env
	@$(RUN) mos demo $(BAG) --out out/demo $(if $(MODEL),--model $(MODEL)) $(ARGS)

test: env-test
	@$(RUN) python -m pytest -q test

env: $(VENV)/.done-ros $(VENV)/.done-messages $(VENV)/.done-package
env-test: env $(VENV)/.done-test

$(VENV)/bin/python:
	@$(PYTHON) .ci/check_machine.py
	@echo '== virtual environment'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip wheel 'setuptools<80'

$(VENV)/.done-ros: requirements/ros.txt requirements/run.txt $(CONSTRAINTS) | $(VENV)/bin/python
	@echo '== ROS 2 and runtime packages (about a minute)'
	@$(PIP) -r requirements/ros.txt -r requirements/run.txt
	@touch $@

$(VENV)/.done-messages: $(INTERFACE_FILES) .ci/ros_wheels.cmake $(VENV)/.done-ros
	@echo '== messages, with colcon (about half a minute)'
	@mkdir -p $(BUILD) && $(RUN) colcon --log-base $(BUILD)/log build --merge-install --install-base $(VENV) --build-base $(BUILD) \
	  --base-paths $(INTERFACES) --event-handlers console_direct- console_cohesion- status- summary- --cmake-args -GNinja \
	  -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/.ci/ros_wheels.cmake \
	  > $(BUILD)/messages.log 2>&1 || { tail -n 40 $(BUILD)/messages.log; exit 1; }
	@touch $@

$(VENV)/.done-package: setup.py setup.cfg package.xml $(VENV)/.done-ros
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.done-test: requirements/test.txt $(CONSTRAINTS) $(VENV)/.done-package
	@echo '== torch and test packages (about a minute)'
	@$(PIP) $(TORCH) 'setuptools<80'
	@$(PIP) -r requirements/test.txt 'setuptools<80'
	@touch $@

# A fresh environment by the rules of env-test itself, only without the constraints.
env-newest:
	@rm -rf build/newest
	@$(MAKE) --no-print-directory env-test BUILD=build/newest VENV=$(CURDIR)/build/newest/venv CONSTRAINTS=
	@build/newest/venv/bin/python $(FREEZE) > build/newest/versions.txt
	@diff <(grep -v '^#' $(PINNED)) build/newest/versions.txt && echo '== nothing newer' || true
	@. build/newest/venv/bin/activate && AMENT_PREFIX_PATH=$$VIRTUAL_ENV \
	  python -c 'import mos_perception.pipeline, mos_perception.ros.node, training.train; print("== it imports")'

# The same without the messages, which no version hangs on.
constraints: NEW := $(CURDIR)/build/constraints
constraints:
	@rm -rf $(NEW)
	@$(MAKE) --no-print-directory $(NEW)/.done-test VENV=$(NEW) CONSTRAINTS=
	@$(NEW)/bin/python -c 'import sys; print("# Python %d.%d" % sys.version_info[:2])' > $(NEW)/versions.txt
	@$(NEW)/bin/python $(FREEZE) >> $(NEW)/versions.txt
	@cp $(NEW)/versions.txt $(PINNED)

# A virtual environment that sees the distribution's packages, and THIS environment's colcon: colcon writes its own
# interpreter into the executables it installs, so the node sees what pip put here. Ubuntu 24.04's system pip refuses
# to install, and NumPy must be the one that the distribution is compiled for: requirements/distribution.txt.
ros-env:
	@test -n "$$ROS_DISTRO" || { echo 'ROS_DISTRO is not set: . /opt/ros/jazzy/setup.bash, or your distribution'; exit 2; }
	@test -x $(ROS_VENV)/bin/pip || $(ROS_PYTHON) -m venv --system-site-packages $(ROS_VENV) || \
	  { echo 'no virtual environment: apt install python3-venv'; exit 2; }
	@touch $(ROS_VENV)/COLCON_IGNORE
	@$(ROS_VENV)/bin/python -m pip --quiet --disable-pip-version-check install -c requirements/distribution.txt \
	  -r requirements/run.txt $(EXTRA)

ros: ros-env
	@cd $(WORKSPACE) && $(ROS_VENV)/bin/python -m colcon build --base-paths $(CURDIR) $(CURDIR)/mos_msgs $(COLCON)
	@echo '== now: . $(WORKSPACE)/install/setup.bash && ros2 run mos_perception mos doctor'

generate: env
	@$(RUN) python -m mos_perception.commands.generate

lint: env-test
	@$(RUN) python -m ruff check .

clean:
	rm -rf build install log out
