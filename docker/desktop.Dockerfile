# A desktop with an NVIDIA driver, ROS 2 Jazzy; TensorRT-RTX from PyPI, or full TensorRT in BASE. Not run by us.
#
#   docker build -f docker/desktop.Dockerfile -t mos_perception .
#   docker run --rm -it --gpus all --network host --ipc host -v ~/.cache/mos_perception:/root/.cache/mos_perception mos_perception
#
# --ipc host: without it DDS sees the host's processes and nothing flows; or see docs/install.md, "Containers".
# First, in the container: ros2 run mos_perception mos build --model dimos_nano --backend tensorrt_rtx
# rviz: also -e DISPLAY -v /tmp/.X11-unix:/tmp/.X11-unix, then rviz:=true
ARG BASE=ros:jazzy-ros-base
FROM ${BASE}
SHELL ["/bin/bash", "-c"]
RUN apt-get update && apt-get install -y --no-install-recommends make python3-venv python3-colcon-common-extensions \
      ros-jazzy-cv-bridge ros-jazzy-message-filters ros-jazzy-event-camera-msgs ros-jazzy-event-camera-py \
      ros-jazzy-vision-msgs ros-jazzy-rviz2 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ws/src/mos_perception
COPY Makefile Makefile
COPY requirements requirements
ARG RTX=tensorrt-rtx-cu13
RUN . /opt/ros/jazzy/setup.bash && make ros-env EXTRA="cuda-core[cu13] ${RTX}"
COPY . .
RUN . /opt/ros/jazzy/setup.bash && make ros WORKSPACE=/ws
ENTRYPOINT ["/bin/bash", "-c", ". /opt/ros/jazzy/setup.bash && . /ws/install/setup.bash && exec \"$@\"", "mos"]
CMD ["ros2", "launch", "mos_perception", "dimos.launch.py"]
