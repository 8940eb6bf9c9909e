"""The only place that knows ROS: messages, parameters, the lifecycle node, player and recorder."""
