# JetPack 7.2 (L4T 39.2) on Orin and Thor, ROS 2 Jazzy, TensorRT 10.16 or newer. Not run by us.
#
#   docker build -f docker/jetpack7.Dockerfile --build-arg BASE=IMAGE -t mos_perception .
#   docker run --rm -it --runtime nvidia --network host -v ~/.cache/mos_perception:/root/.cache/mos_perception mos_perception
#
# IMAGE: Ubuntu 24.04 with ROS 2 Jazzy and TensorRT for CUDA 13; the default has no TensorRT, and `mos doctor` in the
# container then says so. On Orin, TensorRT 10.13 holds no code for sm_87: take 10.16.
ARG BASE=ros:jazzy-ros-base
FROM ${BASE}
SHELL ["/bin/bash", "-c"]
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-colcon-common-extensions \
      ros-jazzy-cv-bridge ros-jazzy-message-filters ros-jazzy-event-camera-msgs ros-jazzy-event-camera-py \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ws/src/mos_perception
COPY requirements/run.txt requirements/run.txt
# cuda-core brings NVRTC and cuda-bindings: kernels are compiled at start, no toolkit is needed
RUN pip3 install --no-cache-dir --break-system-packages 'numpy<2' -r requirements/run.txt 'cuda-core[cu13]'
COPY . .
RUN . /opt/ros/jazzy/setup.bash && cd /ws \
    && colcon build --base-paths src/mos_perception src/mos_perception/mos_msgs
ENTRYPOINT ["/bin/bash", "-c", ". /opt/ros/jazzy/setup.bash && . /ws/install/setup.bash && exec \"$@\"", "mos"]
CMD ["ros2", "launch", "mos_perception", "dimos.launch.py"]
