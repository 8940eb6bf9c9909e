# JetPack 6.2 (L4T 36.4), ROS 2 Humble, the board's TensorRT 10.3. Not run by us.
#
#   docker build -f docker/jetpack6.Dockerfile --build-arg BASE=IMAGE -t mos_perception .
#   docker run --rm -it --runtime nvidia --network host --ipc host -v ~/.cache/mos_perception:/root/.cache/mos_perception mos_perception
#
# --ipc host: without it DDS sees the host's processes and nothing flows; or see docs/install.md, "Containers".
# IMAGE: Ubuntu 22.04 with ROS 2 Humble, CUDA 12.6 (nvcc) and TensorRT 10.3 for L4T 36.4; the default has no TensorRT, and
# `ros2 run mos_perception mos doctor` in the container then says so.
ARG BASE=ros:humble-ros-base
FROM ${BASE}
SHELL ["/bin/bash", "-c"]
RUN apt-get update && apt-get install -y --no-install-recommends make python3-venv python3-dev python3-colcon-common-extensions \
      ros-humble-cv-bridge ros-humble-message-filters ros-humble-event-camera-msgs ros-humble-event-camera-py \
      ros-humble-vision-msgs \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ws/src/mos_perception
COPY Makefile Makefile
COPY requirements requirements
# pycuda is built here: PyPI's CUDA wheels for aarch64 do not serve JetPack 6
RUN . /opt/ros/humble/setup.bash && make ros-env \
    && if [ -d /usr/local/cuda ]; then PATH=/usr/local/cuda/bin:$PATH make ros-env EXTRA=pycuda; fi
COPY . .
RUN . /opt/ros/humble/setup.bash && make ros WORKSPACE=/ws
ENTRYPOINT ["/bin/bash", "-c", ". /opt/ros/humble/setup.bash && . /ws/install/setup.bash && exec \"$@\"", "mos"]
CMD ["ros2", "launch", "mos_perception", "dimos.launch.py"]
