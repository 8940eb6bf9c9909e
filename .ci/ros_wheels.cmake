# The ROS wheels' CMake targets name include folders of the machine they were built on; drop those.
# Passed as CMAKE_PROJECT_INCLUDE by the Makefile only; a ROS distribution needs none of this.
function(ros_wheels_strip_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(dirs ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(dirs MATCHES "/opt/python/cp")
      list(FILTER dirs EXCLUDE REGEX "^/opt/python/cp")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${dirs}")
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL ros_wheels_strip_includes)
