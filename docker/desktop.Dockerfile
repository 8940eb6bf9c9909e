# A desktop with an NVIDIA driver, ROS 2 Jazzy; TensorRT-RTX from PyPI, or full TensorRT in BASE. Not run by us.
#
#   docker build -f docker/desktop.Dockerfile -t mos_perception .
#   docker run --rm -it --gpus all --network host -v ~/.cache/mos_perception:/root/.cache/mos_perception mos_perception
#
# First, in the container: mos build --model dimos_nano --backend tensorrt_rtx
ARG BASE=ros:jazzy-ros-base
FROM ${BASE}
SHELL ["/bin/bash", "-c"]
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-colcon-common-extensions \
      ros-jazzy-cv-bridge ros-jazzy-message-filters ros-jazzy-event-camera-msgs ros-jazzy-event-camera-py ros-jazzy-rviz2 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ws/src/mos_perception
COPY requirements/run.txt requirements/run.txt
ARG RTX=tensorrt-rtx-cu13
RUN pip3 install --no-cache-dir --break-system-packages 'numpy<2' -r requirements/run.txt 'cuda-core[cu13]' ${RTX}
COPY . .
RUN . /opt/ros/jazzy/setup.bash && cd /ws \
    && colcon build --base-paths src/mos_perception src/mos_perception/mos_msgs
ENTRYPOINT ["/bin/bash", "-c", ". /opt/ros/jazzy/setup.bash && . /ws/install/setup.bash && exec \"$@\"", "mos"]
CMD ["ros2", "launch", "mos_perception", "dimos.launch.py"]
