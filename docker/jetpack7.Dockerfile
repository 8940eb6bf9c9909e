# JetPack 7.2 (L4T 39.2) on Orin and Thor, ROS 2 Jazzy, TensorRT 10.16 or newer. Not run by us.
#
#   docker build -f docker/jetpack7.Dockerfile --build-arg BASE=IMAGE -t mos_perception .
#   docker run --rm -it --runtime nvidia --network host --ipc host -v ~/.cache/mos_perception:/root/.cache/mos_perception mos_perception
#
# --ipc host: without it DDS sees the host's processes and nothing flows; or see docs/install.md, "Containers".
# IMAGE: Ubuntu 24.04 with ROS 2 Jazzy and TensorRT for CUDA 13; the default has no TensorRT, and
# `ros2 run mos_perception mos doctor` in the container then says so. On Orin, TensorRT 10.13 holds no code for sm_87: take 10.16.
ARG BASE=ros:jazzy-ros-base
FROM ${BASE}
SHELL ["/bin/bash", "-c"]
RUN apt-get update && apt-get install -y --no-install-recommends make python3-venv python3-colcon-common-extensions \
      ros-jazzy-cv-bridge ros-jazzy-message-filters ros-jazzy-event-camera-msgs ros-jazzy-event-camera-py \
      ros-jazzy-vision-msgs \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ws/src/mos_perception
COPY Makefile Makefile
COPY requirements requirements
# cuda-core brings NVRTC and cuda-bindings: kernels are compiled at start, no toolkit is needed
RUN . /opt/ros/jazzy/setup.bash && make ros-env EXTRA='cuda-core[cu13]'
COPY . .
RUN . /opt/ros/jazzy/setup.bash && make ros WORKSPACE=/ws
ENTRYPOINT ["/bin/bash", "-c", ". /opt/ros/jazzy/setup.bash && . /ws/install/setup.bash && exec \"$@\"", "mos"]
CMD ["ros2", "launch", "mos_perception", "dimos.launch.py"]
